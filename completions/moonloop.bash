# bash completion for moonloop(1)

_moonloop() {
  local cur=${COMP_WORDS[COMP_CWORD]} i=1
  # The script and what comes after it are names of files.
  while ((i < COMP_CWORD)); do
    case ${COMP_WORDS[i]} in
      -e | -l | --trace) ((i++)) ;;
      -- | - | [!-]*) i=$COMP_CWORD ;;
    esac
    ((i++))
  done
  COMPREPLY=()
  if ((i == COMP_CWORD)) && [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "-e -i -l -v -E -W --trace --stats -- - --version --help" -- "$cur")
  fi
}
complete -o default -F _moonloop moonloop
