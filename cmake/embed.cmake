# Writes OUTPUT, a C file with the Lua modules FILES below ROOT as byte arrays,
# for src/lua/embedded.h. A module's name is its path with dots; that of an
# init.lua is its folder's.
set(arrays "")
set(rows "")
set(i 0)
list(SORT FILES)
foreach(file ${FILES})
  file(RELATIVE_PATH name "${ROOT}" "${file}")
  string(REGEX REPLACE "\\.lua$" "" name "${name}")
  string(REGEX REPLACE "/init$" "" name "${name}")
  string(REPLACE "/" "." name "${name}")
  file(READ "${file}" bytes HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(APPEND arrays "static const unsigned char module_${i}[] = {\n${bytes}0 };\n")
  string(APPEND rows
         "  { \"${name}\", (const char *)module_${i}, sizeof module_${i} - 1, NULL },\n")
  math(EXPR i "${i} + 1")
endforeach()
file(WRITE "${OUTPUT}" "#include \"lua/embedded.h\"

${arrays}
struct lml_embedded lml_embedded[] = {
${rows}  { NULL, NULL, 0, NULL },
};
")
