# moonloop_layer(NAME SEES LAYER... USES LIBRARY... [WITHOUT FILE...])
#
# The objects of src/NAME, but for the files that are for other systems. Its files include "core/x.h" and the like through a
# directory of links that holds only the layers it may see, so that an include
# of a layer above does not compile.
function(moonloop_layer name)
  cmake_parse_arguments(arg "" "" "SEES;USES;WITHOUT" ${ARGN})
  set(view "${CMAKE_BINARY_DIR}/include/${name}")
  file(REMOVE_RECURSE "${view}")
  file(MAKE_DIRECTORY "${view}")
  foreach(seen ${arg_SEES})
    file(CREATE_LINK "${CMAKE_SOURCE_DIR}/src/${seen}" "${view}/${seen}" SYMBOLIC)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${name}/*.c")
  foreach(file ${arg_WITHOUT})
    list(REMOVE_ITEM sources "${CMAKE_SOURCE_DIR}/src/${name}/${file}")
  endforeach()
  add_library(${name} OBJECT ${sources} "${CMAKE_SOURCE_DIR}/src/include/moonloop.h")
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/src/include" "${view}")
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wundef -Werror=implicit-function-declaration
                         -Wno-missing-field-initializers)
  target_link_libraries(${name} PUBLIC ${arg_USES})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
  if(MOONLOOP_GC_STRESS)
    target_compile_definitions(${name} PRIVATE LML_GC_STRESS)
  endif()
endfunction()
