# spec/c/NAME_test.c: each a program that prints `N passed, N failed`. They reach
# into the layers they test, so they link the objects rather than a product.
enable_testing()

function(moonloop_c_test name)
  add_executable(${name} "${CMAKE_SOURCE_DIR}/spec/c/${name}.c")
  target_link_libraries(${name} PRIVATE ${ARGN})
  target_include_directories(${name} PRIVATE
    "${CMAKE_SOURCE_DIR}/src/include" "${CMAKE_BINARY_DIR}/include/cli")
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow -Wno-missing-field-initializers)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests" LINKER_LANGUAGE C)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
endfunction()

file(GLOB tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/spec/c/*_test.c")
foreach(test ${tests})
  get_filename_component(name "${test}" NAME_WE)
  if(name STREQUAL "crossing_test") # brings its own stand-ins for the rest of src/lua
    moonloop_c_test(${name} core LUA_HEADERS LUA_LIBRARY)
    target_sources(${name} PRIVATE src/lua/crossing.c src/lua/crossing_encode.c
                   src/lua/crossing_decode.c src/lua/crossing_path.c src/lua/names.c
                   src/lua/bytecode.c)
  elseif(name MATCHES "^(poke|host_signals)_test$")
    moonloop_c_test(${name} core http lua LUA_LIBRARY)
  elseif(name MATCHES "^embed_") # as a C program would: with the library and its header
    moonloop_c_test(${name} libmoonloop LUA_HEADERS LUA_LIBRARY PkgConfig::UV Threads::Threads)
  else()
    moonloop_c_test(${name} core http)
  endif()
endforeach()
