# The steps of `./dev check [STEP ...] [FILE ...]`, which reads this file: one line each.
# Files are for the steps that run specs: only these. Those steps run side by side, since
# specs wait more than they compute. Sanitized builds bring a Lua of their own, built from
# the distribution's source with the same sanitizer and with Lua's API checks, under the
# name lua5.4, so that specs and the programs they start all run on it.

wanted() {
  case " $steps " in "  " | *" $1 "*) ;; *) return 1 ;; esac
}

# step NAME CMD...: runs the command and says how it went.
step() {
  name=$1
  shift
  log=$build/check/$name.log
  began=$(date +%s)
  if ("$@") >"$log" 2>&1 </dev/null; then
    detail=$(tail -n 1 "$log" | grep ' passed, ' || true)
    echo "$name: ok${detail:+, $detail} ($(($(date +%s) - began)) s)"
  else
    tail -n 200 "$log"
    echo "$name: failed (all of it: $log)"
    return 1
  fi
}

# Releases of clang-format differ in a few lines: 14, which Debian 12 has, is what decides.
check_format() {
  release=$(clang-format --version | sed -n 's/.* version \([0-9]*\).*/\1/p')
  if [ "$release" != 14 ]; then
    echo "not checked: clang-format $release is not 14"
    return 0
  fi
  find src spec/c bench examples -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
}

check_lint() {
  luacheck --quiet --codes .
}

# Only ml_* and luaopen_* leave the products, libmoonloop's with its version. Other names
# with @ are the C library's.
check_exports() {
  for product in moonloop.so libmoonloop.so moonloop; do
    [ -f "$build/$product" ] || continue
    names=$(nm -D --defined-only "$build/$product" | awk '{ print $3 }' | sed 's/@@MOONLOOP_0$//; /^MOONLOOP_0$/d')
    echo "$names" | grep -q '^luaopen_moonloop$' || fail "$product lacks luaopen_moonloop"
    others=$(echo "$names" | grep -v -e '^ml_' -e '^luaopen_' -e '@' || true)
    [ -z "$others" ] || fail "$product exports $(echo "$others" | tr "\n" " ")"
  done
  if [ -f "$build/libmoonloop.so" ]; then
    nm -D "$build/libmoonloop.so" | grep -q ' T ml_version@@MOONLOOP_0$' ||
      fail "the names of libmoonloop.so have no version"
  fi
  if nm -D "$build/moonloop.so" | grep -q 'U lua_' &&
    readelf -d "$build/moonloop.so" | grep -q 'NEEDED.*liblua'; then
    fail "moonloop.so is linked to liblua"
  fi
}

# An include of a layer above must not compile; one of a layer below must.
check_layers() {
  includes() { # LAYER HEADER
    echo "#include \"$2\"" | cc -D_GNU_SOURCE -fsyntax-only -I src/include \
      -I "$build/include/$1" -I "$(pkg-config --variable=includedir lua5.4)/lua5.4" -x c -
  }
  below=
  for layer in core http lua embed cli; do
    header=$(cd src && ls $layer/*.h 2>/dev/null | head -n 1)
    [ -n "$header" ] || continue
    for lower in $below; do
      ! includes "$lower" "$header" 2>/dev/null || fail "src/$lower can include $header"
    done
    below="$below $layer"
    for lower in $below; do
      header=$(cd src && ls "$lower"/*.h | head -n 1)
      includes "$layer" "$header" || fail "src/$layer cannot include $header"
    done
  done
  ! grep -rnE '#include +"(\.\.|/)' src || fail "a path climbs out of its layer"
  ! grep -rnE '#include +[<"](lua|lauxlib|lualib)\.h' src/core src/http || fail "Lua below src/lua"
  ! grep -rnE '#include +<curl/' src/core || fail "libcurl below src/http"
}

# apt WORD...: apt-get in the folder $apt, with settings of its own: the system's lists of
# sources stay as they are.
apt() {
  (cd "$apt" && apt-get -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" \
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o APT::Sandbox::User= \
    -o Acquire::Languages=none "$@")
}

# Makes that folder, for sources.
begin_apt() {
  apt=$1
  rm -rf "$apt"
  mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/archives/partial"
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$list" ] || continue
    sed -n 's/^ *deb\(-src\)\{0,1\} /deb-src /p' "$list" | sort -u >"$apt/parts/$(basename "$list" .list).list"
  done
  for list in /etc/apt/sources.list.d/*.sources; do
    [ -f "$list" ] || continue
    sed 's/^Types:.*/Types: deb-src/' "$list" >"$apt/parts/$(basename "$list")"
  done
  apt update || echo "some lists did not come: perhaps those that are needed did"
}

# Fetches the source of the distribution's Lua into $lua_source.
fetch_lua() {
  [ ! -f "$lua_source/src/lua.h" ] || return 0
  has apt-get || fail "no source of Lua 5.4: name its directory in MOONLOOP_LUA_SOURCE"
  begin_apt "$build/check/apt"
  apt source lua5.4
  rm -rf "$lua_source"
  mv "$apt"/lua5.4-*/ "$lua_source"
  rm -rf "$apt"
}

# Fetches packages whose specs know nothing of moonloop.
fetch_suites() {
  [ ! -d "$suites" ] || return 0
  has apt-get || fail "no packages with specs: have a folder of their sources at $suites"
  begin_apt "$build/check/apt-suites"
  apt source --tar-only lua-argparse lua-luassert lua-mediator lua-say
  # The sources that Debian 12 has of the next are not in its archive any more: those of the
  # release after it are.
  for list in "$apt"/parts/*; do
    sed 's/\<bookworm/trixie/g' "$list" >"$apt/parts/next-$(basename "$list")"
  done
  apt update || echo "some lists did not come: perhaps those that are needed did"
  for package in lua-busted lua-penlight; do
    apt source --tar-only "$package" || echo "without the specs of $package"
  done
  for tar in "$apt"/*.orig.tar.*; do (cd "$apt" && tar xf "$tar"); done
  rm -f "$apt"/busted-*/spec/cl_spec.lua # runs the program busted, a hundred times, without us
  rm -rf "$apt"/*.tar.* "$apt/parts" "$apt/lists" "$apt/archives" "$apt"/*.bin "$apt"/*.dsc
  mv "$apt" "$suites"
}

# Other people's specs have the same outcome under the helper as without, in one state and in
# several.
check_suites() {
  use_build "$build"
  result=0
  for suite in "$suites"/*/; do
    [ -d "$suite/spec" ] || continue
    plain=''
    for how in '' '--helper=moonloop.busted -Xhelper timeout=60' \
      '--helper=moonloop.busted -Xhelper timeout=60,parallel=2'; do
      # shellcheck disable=SC2086 # two words or none
      out=$(cd "$suite" && LUA_PATH="./src/?.lua;./src/?/init.lua;./lua/?.lua;./?.lua;./?/init.lua;$LUA_PATH" timeout 120 \
        lua5.4 "$root/.ci/busted.lua" --ignore-lua --no-coverage -o plainTerminal $how spec 2>&1) &&
        status=0 || status=$?
      counts=$(echo "$out" | sed -n 's|^\([0-9]* success.*pending\) : .*|\1|p')
      echo "$(basename "$suite") $how: $counts, exit status $status"
      [ -n "$plain" ] || plain="$counts $status"
      [ -n "$counts" ] && [ "$plain" = "$counts $status" ] && continue
      echo "$out"
      result=1
    done
  done
  return $result
}

# sanitized NAME CMAKE-ARGS...: every spec and C test once more with that build.
# But those that mostly run other programs, or measure time, run once, in `./dev test`; and
# what has little to show that build runs there only when it is named, for the time it takes:
# `./dev check tsan spec/*_spec.lua`.
# Reports of processes that specs start count too. Specs that measure memory or
# count threads see the name in MOONLOOP_CHECK.
sanitized() {
  export MOONLOOP_CHECK="$1"
  dir=$build/check/$1
  report=$dir/report
  shift
  build_in "$dir" -DMOONLOOP_LUA_SOURCE="$lua_source" "$@"
  use_build "$dir"
  rm -f "$report".*
  # The reports decide; exit statuses stay those of the programs.
  export ASAN_OPTIONS="log_path=$report:exitcode=0:detect_leaks=1"
  export LSAN_OPTIONS="suppressions=$root/.ci/lsan.supp:print_suppressions=0"
  export UBSAN_OPTIONS="log_path=$report:exitcode=0:print_stacktrace=1"
  export TSAN_OPTIONS="log_path=$report:exitcode=0:suppressions=$root/.ci/tsan.supp"
  export MOONLOOP_TEST_LIMIT="${MOONLOOP_TEST_LIMIT:-1800}"
  result=0
  if [ -z "$files" ]; then
    once='docs|examples|install|embed|hosts|busted_helper|busted_parallel|testing|program|repl|http_timeouts'
    case $MOONLOOP_CHECK in
      # Of the C tests those that have a Lua state.
      gc) once="$once|process_faults|preempt" c_tests='crossing|embed[a-z_]*|host_signals|poke' ;;
      # HTTP's options are one thread's work; http, http2, http_cancel and http_session stay.
      tsan) once="$once|process_faults|crossing_[a-z]*|websocket_rules|http_([d-r]|co|st|up)[a-z]*" ;;
    esac
    files=$(ls spec/c/*_test.c spec/*_spec.lua | grep -vE "/($once)_spec" |
      grep -E "_spec|/(${c_tests:-.*})_test")
  fi
  # shellcheck disable=SC2086 # a list of words
  run_tests "$dir" $files || result=1
  for file in "$report".*; do
    [ -f "$file" ] || continue
    # Of a thread that ends while it looks for leaks the sanitizer says only this.
    grep -vE '^(==[0-9]+==Unable to get registers from thread [0-9]+\.)?$' "$file" && result=1
  done
  return $result
}

# With nothing that only Linux has: a part of the specs, for each thing that is otherwise.
portable() {
  dir=$build/check/portable
  build_in "$dir" -DMOONLOOP_PORTABLE=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-Werror
  calls='eventfd|epoll_.*|timerfd_.*|memfd_create|prctl|syscall|accept4|pipe2|sched_.*affinity|mem(pcpy|rchr)'
  found=$(nm -D --undefined-only "$dir/moonloop" | sed 's/@.*//' | awk '{ print $2 }' |
    grep -xE "$calls" | tr '\n' ' ')
  [ -z "$found" ] || fail "only Linux has $found"
  ! grep -rnE '\b(SOCK_(CLOEXEC|NONBLOCK)|MFD_|EFD_|EPOLL)' src --include=*.[ch] |
    grep -vE '_(linux|epoll|fd)\.c:' || fail "only Linux has these"
  use_build "$dir"
  [ -n "$files" ] || files="spec/c/alarm_test.c spec/c/link_test.c spec/c/loop_test.c spec/c/park_test.c
    spec/c/stream_test.c spec/job_spec.lua spec/executor_spec.lua spec/tcp_spec.lua spec/http_spec.lua
    spec/process_executor_spec.lua spec/thread_executor_spec.lua spec/repl_spec.lua spec/interrupt_spec.lua"
  # shellcheck disable=SC2086 # a list of words
  run_tests "$dir" $files
}

mkdir -p "$build/check"
steps='' files=''
for argument in "$@"; do
  case $argument in
    *_spec.lua | *_test.c) files="$files $argument" ;;
    *) steps="$steps $argument" ;;
  esac
done
steps=${steps# }
lua_source=${MOONLOOP_LUA_SOURCE:-$build/check/lua-source}

suites=$build/check/suites
if wanted suites; then quietly "fetching packages with specs" fetch_suites; fi
for name in format lint exports layers suites; do
  if wanted "$name"; then step "$name" "check_$name" || exit 1; fi
done

running=
begin() {
  wanted "$1" || return 0
  quietly "fetching Lua's source" fetch_lua
  step "$@" &
  running="$running $!"
}
if wanted portable; then
  step portable portable &
  running="$running $!"
fi
begin gc-stress sanitized gc -DMOONLOOP_GC_STRESS=ON -DCMAKE_C_FLAGS=-Werror
begin asan sanitized asan -DMOONLOOP_SANITIZE=address,undefined
begin tsan sanitized tsan -DMOONLOOP_SANITIZE=thread
result=0
for pid in $running; do wait "$pid" || result=1; done
exit $result
