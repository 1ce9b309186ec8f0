# What `cmake --install` puts where. The Lua module goes where Lua 5.4 looks below
# the prefix: PREFIX/lib/lua/5.4.
set(MOONLOOP_CMOD "lib/lua/5.4" CACHE STRING "Where the Lua module goes, below the prefix")

install(TARGETS module LIBRARY DESTINATION "${MOONLOOP_CMOD}")
install(TARGETS libmoonloop LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES src/include/moonloop.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(TARGET program)
  install(TARGETS program RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

configure_file(cmake/moonloop.pc.in moonloop.pc @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/moonloop.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# The same for the build tree, for `./dev exec`.
set(CMAKE_INSTALL_FULL_LIBDIR "${CMAKE_BINARY_DIR}")
set(CMAKE_INSTALL_FULL_INCLUDEDIR "${CMAKE_SOURCE_DIR}/src/include")
configure_file(cmake/moonloop.pc.in pkgconfig/moonloop.pc @ONLY)
