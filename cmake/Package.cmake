# `cpack -G DEB` in the build directory: a .deb of all that is installed, under /usr.
set(CPACK_PACKAGE_NAME moonloop)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "async executor for Lua 5.4")
set(CPACK_PACKAGE_DESCRIPTION "Jobs are coroutines on libuv loops that have threads of their own; any Lua
state on any thread gives them work and gets a future back. With HTTP, TCP,
pools of threads and of processes, a program that runs scripts, a library for
C programs with Lua plugins, and a helper for busted.")
set(CPACK_PACKAGE_CONTACT "The moonloop developers <moonloop@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION interpreters)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "lua5.4")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "lua-cjson, lua-busted, pkg-config, liblua5.4-dev")
include(CPack)
