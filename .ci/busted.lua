-- busted under the interpreter that runs this file, with its arguments as they are.
require "busted.runner" { standalone = false }
