# What `cmake --install` puts where, below a prefix that is chosen then. Nothing that is
# installed has the prefix in it: the tree may be moved as a whole.
#
#   bin/moonloop                        the program
#   lib/lua/5.4/moonloop.so             the Lua module; its Lua files are in it
#   lib/libmoonloop.so.*, .a            for C programs, with include/moonloop.h
#   lib/pkgconfig, lib/cmake            how C programs find these
#   share/man, share/...                manual page, completions, types for editors
include(CMakePackageConfigHelpers)

# Where Lua 5.4 looks below /usr/local and /usr; LuaRocks says where it wants it.
set(MOONLOOP_CMOD "lib/lua/5.4" CACHE STRING "Where the Lua module goes, below the prefix")

install(TARGETS program RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(TARGETS module LIBRARY DESTINATION "${MOONLOOP_CMOD}")
install(TARGETS libmoonloop libmoonloop_static EXPORT moonloop
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES src/include/moonloop.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES docs/moonloop.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
install(FILES completions/moonloop.bash RENAME moonloop
        DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
# Debian's zsh looks for what is packaged in a place of its own. This is read at the install.
install(CODE [[
  set(zsh share/zsh/site-functions)
  if(CMAKE_INSTALL_PREFIX STREQUAL "/usr" AND EXISTS /etc/debian_version)
    set(zsh share/zsh/vendor-completions)
  endif()]])
install(FILES completions/moonloop.zsh RENAME _moonloop DESTINATION "\${zsh}")
install(FILES completions/moonloop.fish
        DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d")
install(DIRECTORY library DESTINATION "${CMAKE_INSTALL_DATADIR}/moonloop")
install(FILES LICENSE RENAME copyright DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/moonloop")

# ---- the CMake package: moonloop::moonloop, moonloop::moonloop_static ----

set(package "${CMAKE_INSTALL_LIBDIR}/cmake/moonloop")
set(static_modules libuv libcurl openssl ${LUA_MODULE_NAME})
set_target_properties(libmoonloop PROPERTIES EXPORT_NAME moonloop)
set_target_properties(libmoonloop_static PROPERTIES EXPORT_NAME moonloop_static)
# A target that cmake/moonloop-config.cmake.in makes.
target_link_libraries(libmoonloop_static INTERFACE $<INSTALL_INTERFACE:moonloop::needs>)
install(EXPORT moonloop NAMESPACE moonloop:: FILE moonloop-targets.cmake DESTINATION "${package}")
configure_package_config_file(cmake/moonloop-config.cmake.in moonloop-config.cmake
                              INSTALL_DESTINATION "${package}")
write_basic_package_version_file(moonloop-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/moonloop-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/moonloop-config-version.cmake" DESTINATION "${package}")

# ---- pkg-config ----

# The libraries that moonloop itself uses, for a link with libmoonloop.a. They are spelled
# out: as `Requires.private` each would bring all that its own archive needs.
set(PC_NEEDS ${CURL_LDFLAGS} ${CRYPTO_LDFLAGS} ${UV_LDFLAGS} ${LUA_LDFLAGS} -lwslay -lpthread -ldl -lm)
list(REMOVE_DUPLICATES PC_NEEDS)
list(FILTER PC_NEEDS EXCLUDE REGEX "^-L/usr/lib(/|$)")
list(JOIN PC_NEEDS " " PC_NEEDS)

set(pc_folder "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
file(RELATIVE_PATH up "/${pc_folder}" "/")
string(REGEX REPLACE "/$" "" up "${up}")
set(PC_PREFIX "\${pcfiledir}/${up}")
set(PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
set(PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
foreach(file moonloop.pc moonloop-static.pc)
  configure_file(cmake/${file}.in ${file} @ONLY)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${file}" DESTINATION "${pc_folder}")
endforeach()

# ... and one for the build tree, for `./dev exec`.
set(PC_PREFIX "${CMAKE_CURRENT_BINARY_DIR}")
set(PC_LIBDIR "\${prefix}")
set(PC_INCLUDEDIR "${CMAKE_CURRENT_SOURCE_DIR}/src/include")
configure_file(cmake/moonloop.pc.in pkgconfig/moonloop.pc @ONLY)
