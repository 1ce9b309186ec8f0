# LUA_HEADERS and LUA_LIBRARY: Lua 5.4, the system's or, with MOONLOOP_LUA_SOURCE,
# built here as a shared library of the same name together with an interpreter
# `lua5.4`, with the sanitizers of this build and Lua's own API checks. C modules
# made for the system's Lua load in either.
add_library(LUA_HEADERS INTERFACE)
add_library(LUA_LIBRARY INTERFACE)

if(NOT MOONLOOP_LUA_SOURCE)
  pkg_search_module(LUA REQUIRED IMPORTED_TARGET lua5.4 lua-5.4 lua54 lua>=5.4)
  target_include_directories(LUA_HEADERS INTERFACE ${LUA_INCLUDE_DIRS})
  target_link_libraries(LUA_LIBRARY INTERFACE PkgConfig::LUA)
  return()
endif()

file(GLOB lua_sources "${MOONLOOP_LUA_SOURCE}/src/*.c")
list(FILTER lua_sources EXCLUDE REGEX "/(lua|luac|onelua|ltests)\\.c$")
pkg_search_module(LUA QUIET lua5.4) # for the header with Debian's module paths
function(moonloop_lua_target target)
  # ThreadSanitizer follows longjmp, but not the _longjmp that Lua raises its errors with.
  target_compile_definitions(${target} PRIVATE LUA_COMPAT_5_3 LUA_USE_LINUX LUA_USE_APICHECK
                                               _longjmp=longjmp)
  target_include_directories(${target} PRIVATE "${MOONLOOP_LUA_SOURCE}/src")
  target_include_directories(${target} SYSTEM PRIVATE ${LUA_INCLUDE_DIRS})
  set_target_properties(${target} PROPERTIES C_VISIBILITY_PRESET default C_EXTENSIONS ON)
endfunction()

add_library(lua_shared SHARED ${lua_sources})
moonloop_lua_target(lua_shared)
target_link_libraries(lua_shared PRIVATE m ${CMAKE_DL_LIBS})
set_target_properties(lua_shared PROPERTIES OUTPUT_NAME lua5.4 SOVERSION 0)
target_include_directories(LUA_HEADERS INTERFACE "${MOONLOOP_LUA_SOURCE}/src")
target_link_libraries(LUA_LIBRARY INTERFACE lua_shared)

add_executable(lua_program "${MOONLOOP_LUA_SOURCE}/src/lua.c")
moonloop_lua_target(lua_program)
target_link_libraries(lua_program PRIVATE lua_shared)
set_target_properties(lua_program PROPERTIES OUTPUT_NAME lua5.4)
