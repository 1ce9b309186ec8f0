/*
** trust.c: the store of trusted certificates.
**
** The source is SSL_CERT_FILE and SSL_CERT_DIR if set, else what libcurl was
** built with. A directory whose certificates are named by the hash of their
** subject is looked up certificate by certificate, as chains ask for them: 1 ms
** where the bundle takes 40. But a bundle that is newer than the directory was
** edited by hand and holds more than the directory: then it is read.
*/
#include "trust.h"

#include <dirent.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "core/system.h"

typedef struct stamp {
  struct timespec changed;
  off_t size;
  ino_t inode;
} stamp;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* a leaf: what follows */
static X509_STORE *store;
static stamp file_stamp, dir_stamp;
static char *file, *dir;

/* Memory that runs out here shows as a source without certificates. */
static void find_source(void) {
  const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
  const char *own_file = getenv("SSL_CERT_FILE"), *own_dir = getenv("SSL_CERT_DIR");
  if (own_file && !*own_file) own_file = NULL;
  if (own_dir && !*own_dir) own_dir = NULL;
  bool own = own_file || own_dir;
  const char *f = own ? own_file : curl->cainfo, *d = own ? own_dir : curl->capath;
  if (f) file = strdup(f);
  if (d) dir = strdup(d);
}

bool mli_trust_usable(void) {
  const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
  unsigned major, minor;
  if (!curl->ssl_version || sscanf(curl->ssl_version, "OpenSSL/%u.%u", &major, &minor) != 2)
    return false;
  unsigned long ours = OpenSSL_version_num();
  return ours >> 28 == major && (ours >> 20 & 0xff) == minor && curl->age >= CURLVERSION_EIGHTH &&
         (curl->cainfo || curl->capath);
}

void mli_trust_source(const char **f, const char **d) {
  pthread_mutex_lock(&mutex);
  if (!file && !dir) find_source();
  *f = file;
  *d = dir;
  pthread_mutex_unlock(&mutex);
}

static stamp stamp_of(const char *path) {
  struct stat st;
  stamp s = { { 0, 0 }, 0, 0 };
  if (path && stat(path, &st) == 0) s = (stamp){ st.st_mtim, st.st_size, st.st_ino };
  return s;
}

static bool same(const stamp *a, const stamp *b) {
  return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
         a->size == b->size && a->inode == b->inode;
}

/* Whether the directory has entries such as "062cdee6.0". */
static bool is_hashed(const char *path) {
  DIR *d = opendir(path);
  bool found = false;
  if (!d) return false;
  for (struct dirent *e; !found && (e = readdir(d));)
    found = strlen(e->d_name) == 10 && strspn(e->d_name, "0123456789abcdef") == 8 &&
            strcmp(e->d_name + 8, ".0") == 0;
  closedir(d);
  return found;
}

static X509_STORE *build(void) {
  X509_STORE *s = X509_STORE_new();
  if (!s) return NULL;
  /* As libcurl does: what is in the store is trusted, intermediate or not. */
  X509_STORE_set_flags(s, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
  bool hashed = dir && is_hashed(dir) && X509_STORE_load_path(s, dir);
  bool current = hashed && dir_stamp.changed.tv_sec >= file_stamp.changed.tv_sec;
  bool loaded = !current && file && X509_STORE_load_file(s, file);
  ERR_clear_error();
  if (hashed || loaded) return s;
  X509_STORE_free(s);
  return NULL;
}

CURLcode mli_trust_apply(CURL *easy, void *ssl_ctx, void *unused) {
  (void)easy, (void)unused;
  pthread_mutex_lock(&mutex);
  if (!file && !dir) find_source();
  stamp f = stamp_of(file), d = stamp_of(dir);
  if (!store || !same(&f, &file_stamp) || !same(&d, &dir_stamp)) {
    X509_STORE_free(store);
    file_stamp = f;
    dir_stamp = d;
    store = build();
  }
  bool ok = store != NULL;
  if (ok) SSL_CTX_set1_cert_store(ssl_ctx, store);
  pthread_mutex_unlock(&mutex);
  return ok ? CURLE_OK : CURLE_SSL_CACERT_BADFILE;
}
