std = "lua54"
max_line_length = 100
include_files = {
  "lua/**/*.lua", "spec/**/*.lua", "examples/**/*.lua", "bench/**/*.lua",
  "docs/*.lua", ".ci/*.lua", ".busted", ".luacheckrc",
}
files["spec"].std = "+busted"
files["examples/testing"].std = "+busted"
