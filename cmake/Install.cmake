# What `cmake --install` puts where. The Lua module goes where Lua 5.4 looks below
# the prefix.
set(MOONLOOP_CMOD "lib/lua/5.4" CACHE STRING "Where the Lua module goes, below the prefix")

install(TARGETS module LIBRARY DESTINATION "${MOONLOOP_CMOD}")
install(TARGETS libmoonloop LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES src/include/moonloop.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS program RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")

# moonloop.pc for an installed tree, which may be moved as a whole...
set(pc_folder "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
file(RELATIVE_PATH up "/${pc_folder}" "/")
string(REGEX REPLACE "/$" "" up "${up}")
set(PC_PREFIX "\${pcfiledir}/${up}")
set(PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
set(PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
configure_file(cmake/moonloop.pc.in moonloop.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/moonloop.pc" DESTINATION "${pc_folder}")

# ... and one for the build tree, for `./dev exec`.
set(PC_PREFIX "${CMAKE_CURRENT_BINARY_DIR}")
set(PC_LIBDIR "\${prefix}")
set(PC_INCLUDEDIR "${CMAKE_CURRENT_SOURCE_DIR}/src/include")
configure_file(cmake/moonloop.pc.in pkgconfig/moonloop.pc @ONLY)
