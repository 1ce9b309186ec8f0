#compdef moonloop
# zsh completion for moonloop(1)

_arguments -S \
  '*-e[execute a string]:Lua code:' \
  '-i[take lines at a prompt after the script]' \
  '*-l[require a library into a global]:library, or global=library:' \
  '-v[show versions]' \
  '-E[ignore environment variables]' \
  '-W[turn warnings on]' \
  '--trace[write what happened when]:file:_files' \
  '--stats[show at the end how busy it was]' \
  '--version[show versions]' \
  '(- *)--help[show the options]' \
  '(-)-[execute standard input]' \
  '1:script:_files' \
  '*::arguments:_files'
