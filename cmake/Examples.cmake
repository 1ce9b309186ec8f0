# The hosts of examples/embed, into build/examples: each where what it is made with is there.
# Users make them by the line at the top of each; this is to see that they compile.
pkg_check_modules(MICROHTTPD IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(HIREDIS IMPORTED_TARGET hiredis)

function(moonloop_example name)
  add_executable(example_${name} "${CMAKE_SOURCE_DIR}/examples/embed/${name}.c")
  target_link_libraries(example_${name} PRIVATE libmoonloop LUA_HEADERS LUA_LIBRARY
                        Threads::Threads ${ARGN})
  target_include_directories(example_${name} PRIVATE "${CMAKE_SOURCE_DIR}/src/include")
  target_compile_options(example_${name} PRIVATE -Wall -Wextra)
  set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name} LINKER_LANGUAGE C
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/examples")
endfunction()

moonloop_example(min)
moonloop_example(uv_host PkgConfig::UV)
if(MICROHTTPD_FOUND)
  moonloop_example(plugin_server PkgConfig::MICROHTTPD)
  moonloop_example(job_server PkgConfig::MICROHTTPD)
endif()
if(HIREDIS_FOUND)
  moonloop_example(awaitable PkgConfig::HIREDIS PkgConfig::UV)
endif()
