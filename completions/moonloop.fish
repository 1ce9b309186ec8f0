# fish completion for moonloop(1)

complete -c moonloop -s e -x -d "Execute a string"
complete -c moonloop -s i -d "Take lines at a prompt after the script"
complete -c moonloop -s l -x -d "Require a library into a global"
complete -c moonloop -s v -d "Show versions"
complete -c moonloop -s E -d "Ignore environment variables"
complete -c moonloop -s W -d "Turn warnings on"
complete -c moonloop -l trace -r -d "Write what happened when"
complete -c moonloop -l stats -d "Show at the end how busy it was"
complete -c moonloop -l version -d "Show versions"
complete -c moonloop -l help -d "Show the options"
