---@meta moonloop
-- The types of `require "moonloop"`, for lua-language-server, and what docs/reference.md is made
-- from. Functions marked ---@async wait: in a job they park it, elsewhere they block the thread.

---An async executor: jobs are coroutines on a loop, and any state may hand it work. See
---[jobs](jobs.md).
---@class moonloop
---@field version string the version, "0.1.0"
---@field trace moonloop.Trace
local moonloop = {}

---What may be a job: a function, `"module:function"`, a coroutine that was not started, a callable
---value, or what `moonloop.job` made.
---@alias moonloop.JobLike function|string|thread|table|userdata

-- Running ------------------------------------------------------------------------------------

---Runs a job on a loop on this thread, in this state. What it spawned and left is cancelled and
---waited for. Inside a job, on the loop that is there.
---@async
---@param job moonloop.JobLike
---@param ... any its arguments
---@return any ... its values; its error is raised
function moonloop.run(job, ...) end

---Starts a job on this loop, in this state; it begins at the loop's next turn. Where this state has
---no loop, as `run_async_job`.
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function moonloop.spawn(job, ...) end

---Another name of `spawn`.
---@param job moonloop.JobLike
---@param ... any
---@return moonloop.Future future
function moonloop.create_task(job, ...) end

---A job with its arguments and options.
---@param spec moonloop.JobSpec
---@return table job for whatever takes a job
function moonloop.job(spec) end

---@class moonloop.JobSpec
---@field [1] moonloop.JobLike the job; its arguments are [2], [3], ...
---@field name? string for messages, `jobs()` and tracebacks
---@field timeout? number seconds from its start; then it fails with the code "timeout"
---@field n? integer the length of the list, the job included, where nils are at its end
---@field loop? integer which loop of the executor it is submitted to
---@field affinity? string|integer jobs of the same one share a loop
---@field preempt_ms? number the time it may compute while others wait; see [observing](observing.md)

---Submits a copy of the job to the default executor.
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function moonloop.run_async_job(job, ...) end

---Another name of `run_async_job`.
---@param job moonloop.JobLike
---@param ... any
---@return moonloop.Future future
function moonloop.run_async(job, ...) end

---Submits each job to the default executor and waits until all of them, and the futures given, are
---settled. Raises for none of them.
---@async
---@param ... moonloop.JobLike|moonloop.Future
---@return moonloop.Future ... one for each argument, in order
function moonloop.complete_async_jobs(...) end

---A plain function that runs the job on the default executor each time it is called, waits, and
---returns its values.
---@param job moonloop.JobLike
---@return function
function moonloop.async_to_sync(job) end

---A function that runs `f` on a thread of a pool each time it is called, waits, and returns its values.
---@param f moonloop.JobLike
---@param options? { executor: moonloop.Executor } where to; the default pool
---@return function
function moonloop.sync_to_async(f, options) end

---Runs `f` on a thread of the default pool and waits. For what blocks.
---@async
---@param f moonloop.JobLike
---@param ... any its arguments
---@return any ... its values
function moonloop.to_thread(f, ...) end

---Runs `f` on a thread of the pool for what computes, and waits.
---@async
---@param f moonloop.JobLike
---@param ... any its arguments
---@return any ... its values
function moonloop.cpu(f, ...) end

---The pool for what computes: a thread for each core.
---@return moonloop.Executor
function moonloop.cpu_executor() end

---Submits `f` to an executor.
---@param executor moonloop.Executor? nil: the default pool
---@param f moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function moonloop.run_in_executor(executor, f, ...) end

-- Waiting ------------------------------------------------------------------------------------

---Waits.
---@async
---@param seconds number `0` lets other jobs run
function moonloop.sleep(seconds) end

---Lets other jobs run. Raises if this job or scope was cancelled.
---@async
function moonloop.checkpoint() end

---The time, of a clock that never jumps.
---@return number seconds from some start
function moonloop.now() end

---Runs the callbacks and refs that are due in this state.
---@async
---@param timeout? number seconds to wait for one; default 0
---@return boolean ran whether there was one
function moonloop.poll(timeout) end

---Whether the caller is in a job.
---@return boolean
function moonloop.in_job() end

---The future of the job that calls, or of the call that a worker thread is at.
---@return moonloop.Future? future
function moonloop.current_job() end

---Whether what runs here was asked to stop. Does not wait.
---@return boolean
function moonloop.cancelled() end

-- Many of them -------------------------------------------------------------------------------

---Waits for all. The first failure cancels the rest, waits for their clean-up, and is raised; with
---`return_errors = true` in the list nothing is raised.
---@async
---@param list table jobs and futures
---@return table results the first values, in order
---@return table errors by index; empty unless `return_errors` is given
function moonloop.gather(list) end

---Waits for futures. Raises none of their errors and cancels nothing.
---@async
---@param futures moonloop.Future[]
---@param options? { timeout: number?, return_when: "all"|"first"|"first_error"|nil } default "all"
---@return moonloop.Future[] done
---@return moonloop.Future[] pending
function moonloop.wait(futures, options) end

---Iterates over futures as they are settled. Past the timeout the iterator raises "k of n unfinished".
---@param futures moonloop.Future[]
---@param timeout? number seconds for all
---@return fun(): moonloop.Future?
function moonloop.as_completed(futures, timeout) end

---Calls `f(item)` for each item, in jobs of this loop. Raises none of their errors.
---@async
---@param list table|function a list, or an iterator
---@param f moonloop.JobLike
---@param options? { limit: integer? } how many at once
---@return table results the first values, by index
---@return table errors by index
function moonloop.map(list, f, options) end

---Likewise, and iterates over each item and what `f` returned, as they finish. Raises `f`'s error
---at its turn. Left early, it cancels the rest and waits for it: hold it in a `<close>` variable.
---@param list table|function a list, or an iterator
---@param f moonloop.JobLike
---@param options? { limit: integer? } how many at once
---@return moonloop.Iteration iteration for `for`: item, values
function moonloop.each(list, f, options) end

---What `each` and an executor's `map` return: callable, for `for`, and `<close>`.
---@class moonloop.Iteration
local Iteration = {}

---Cancels what still runs and waits for its clean-up.
---@async
function Iteration:close() end

---Calls `f(g)` and waits for the jobs of `g`. The first failure, of a job or of `f`, cancels the rest
---and is raised; several are one error with the code "group". Without `f`: a group for a `<close>`
---variable.
---@async
---@param f? fun(g: moonloop.Group): any
---@return any ... what `f` returns; `nil, err` if the group was cancelled; or the group
function moonloop.group(f) end

---Jobs that belong together, and to the block that started them.
---@class moonloop.Group
local Group = {}

---Starts a job of the group, as `moonloop.spawn` does.
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function Group:spawn(job, ...) end

---Cancels its jobs and its block.
---@param reason? any what crosses
---@return boolean took whether it was still open
function Group:cancel(reason) end

-- Limits -------------------------------------------------------------------------------------

---Calls `f(s)`. The scope's own cancel is raised at the waits inside and absorbed here.
---@async
---@param f fun(s: moonloop.Scope): any
---@param options? { timeout: number? } seconds
---@return any ... what `f` returns; or `nil, err`, "cancelled" or "timeout"
function moonloop.scope(f, options) end

---A part of a job that can be cancelled by itself.
---@class moonloop.Scope
---@field cancelled boolean
local Scope = {}

---Cancels it.
---@param reason? any
---@return boolean took whether it was open and not cancelled yet
function Scope:cancel(reason) end

---Sets the time at which it is cancelled.
---@param time number? of `moonloop.now()`; nil: none
function Scope:set_deadline(time) end

---Runs `f` for at most so long; then, after its clean-up, raises an error with the code "timeout".
---@async
---@param seconds number `0` runs it up to its first wait
---@param f function
---@param ... any its arguments
---@return any ... its values
function moonloop.timeout(seconds, f, ...) end

---Another name of `timeout`.
---@async
---@param seconds number
---@param f function
---@param ... any
---@return any ...
function moonloop.wait_for(seconds, f, ...) end

---The same, but past the time it returns `nil, err`.
---@async
---@param seconds number
---@param f function
---@param ... any its arguments
---@return any ... its values; or `nil, err`, "timeout"
function moonloop.move_on_after(seconds, f, ...) end

---Runs `f` where no cancel and no limit from outside reaches.
---@async
---@param f function
---@param ... any its arguments
---@return any ... its values
function moonloop.shield(f, ...) end

---For a `<close>` variable: calls `f(err)` as the block is left, shielded, for up to five seconds.
---@param f fun(err: any)
---@return table closable
function moonloop.defer(f) end

---Whether it is moonloop's error for one's own cancel.
---@param err any
---@return boolean
function moonloop.is_cancelled(err) end

---Whether it is moonloop's error with the code "timeout".
---@param err any
---@return boolean
function moonloop.is_timeout(err) end

---What moonloop raises or returns; `tostring` is the message. See [errors](errors.md).
---@class moonloop.Error
---@field code string for programs
---@field message string for people
---@field reason? any of "cancelled" and "job_cancelled"
---@field errors? any[] of "group"
---@field jobs? moonloop.JobInfo[] of a shutdown that timed out
---@field partial? string what a read got before
---@field sent? integer bytes that a write sent before
---@field signal? integer of "crashed"
---@field status? integer of "crashed", and of HTTP's

-- Futures ------------------------------------------------------------------------------------

---What becomes of one job. Any state may use it, and it may be sent to any.
---@class moonloop.Future
---@field name? string the job's name
local Future = {}

---The job's values; raises its error, or "job_cancelled", or "timeout".
---@async
---@param limit? number|{ timeout: number?, cancel: boolean? } seconds; `cancel` ends the job past them
---@return any ...
function Future:result(limit) end

---The same without raising.
---@async
---@param limit? number|{ timeout: number?, cancel: boolean? }
---@return boolean? ok `true`, and the values; or nil
---@return any ... the values; or the error
function Future:wait(limit) end

---The error, or nil if there is none. Raises only its own timeout.
---@async
---@param timeout? number seconds
---@return any err
function Future:exception(timeout) end

---Where it failed, joined with the jobs that waited for it and the line that submitted it.
---@return string? traceback nil if it did not fail
function Future:traceback() end

---Asks it to end; does not wait for that.
---@param reason? any what crosses; or `{ hard = true, reason = }` to break off what computes on a worker
---@return boolean took whether it was not settled yet
function Future:cancel(reason) end

---Cancels it and waits for its clean-up.
---@async
---@param timeout? number|{ timeout: number?, hard: boolean?, reason: any }
---@return boolean? took
---@return moonloop.Error? err "timeout"
function Future:cancel_and_wait(timeout) end

---Whether it is settled.
---@return boolean
function Future:done() end

---Whether it has begun and is not settled.
---@return boolean
function Future:running() end

---Whether it ended by its own cancel.
---@return boolean
function Future:cancelled() end

---Calls `f(future)` once when it is settled, in this state, in no job.
---@param f fun(future: moonloop.Future)
function Future:add_done_callback(f) end

---A future that is settled by hand. Dropped unsettled, its future fails with "abandoned".
---@return moonloop.Promise
function moonloop.promise() end

---@class moonloop.Promise
---@field future moonloop.Future
local Promise = {}

---Finishes the future. Once; a second time raises.
---@param ... any its values
function Promise:set_result(...) end

---Fails the future. Once; a second time raises.
---@param err any
function Promise:set_error(err) end

-- Executors ----------------------------------------------------------------------------------

---Makes loop threads for jobs.
---@param options? moonloop.AsyncExecutorOptions
---@return moonloop.Executor
function moonloop.AsyncExecutor(options) end

---@class moonloop.AsyncExecutorOptions
---@field name? string of it and of its threads
---@field loops? integer threads, with a Lua state each; default 1
---@field init? moonloop.JobLike runs first in each new state
---@field max_pending? integer unsettled jobs, over which a submit waits
---@field blocked_ms? number how long a job may hold its loop unreported; default 100, 0: for ever
---@field preempt_ms? number the time a job may compute while others wait; default 0: until it waits

---Makes worker threads, with a Lua state each, for what blocks or computes. See [pools](pools.md).
---@param options? moonloop.ThreadExecutorOptions
---@return moonloop.Executor
function moonloop.ThreadExecutor(options) end

---@class moonloop.ThreadExecutorOptions
---@field name? string of it and of its threads
---@field workers? integer at most; default min(32, cores + 4)
---@field init? moonloop.JobLike runs first in each new state
---@field max_pending? integer unsettled jobs, over which a submit waits
---@field idle_timeout? number seconds after which a worker without work ends; default 10
---@field max_jobs? integer functions after which a worker's state is made anew
---@field max_memory? integer bytes over which it is

---Makes child processes, for what may crash or must be killed. See [processes](processes.md).
---@param options? moonloop.ProcessExecutorOptions
---@return moonloop.Executor
function moonloop.ProcessExecutor(options) end

---@class moonloop.ProcessExecutorOptions
---@field name? string
---@field workers? integer at most; default: the cores
---@field init? moonloop.JobLike runs first in each child
---@field max_pending? integer unsettled jobs, over which a submit waits
---@field memory_limit? integer bytes of address space of each child
---@field cpu_limit? number seconds of processor time for each job
---@field max_jobs? integer jobs after which a child is replaced
---@field output? "log"|"inherit"|"discard" what becomes of what children print; default "log"
---@field grace? number seconds between asking a child to end and killing it; default 2

---What takes jobs and gives futures. `<close>`: shut down and waited for at the end of the block.
---@class moonloop.Executor
---@field name string
local Executor = {}

---Submits a copy of the job. Waits while `max_pending` are unsettled. Raises "closed" after shutdown.
---@async
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function Executor:submit(job, ...) end

---The same without waiting.
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future? future
---@return moonloop.Error? err "busy" or "closed"
function Executor:try_submit(job, ...) end

---One call for each item; iterates over the first to the last result, in order. Raises an item's
---error at its turn.
---@async
---@param job moonloop.JobLike
---@param list table|function a list, or an iterator
---@param options? { window: integer?, timeout: number? } calls ahead, 16; seconds for all
---@return moonloop.Iteration iteration for `for`: the values of each call
function Executor:map(job, list, options) end

---Calls `f` there, waits, and returns its values.
---@async
---@param f moonloop.JobLike
---@param ... any its arguments
---@return any ...
function Executor:sync_to_async(f, ...) end

---An async generator there. Of an AsyncExecutor only.
---@param spec moonloop.GeneratorSpec
---@return moonloop.Generator
function Executor:generator(spec) end

---Holds one of its threads or child processes, for calls that need the same Lua state.
---@return moonloop.Worker
function Executor:worker() end

---Takes no more jobs, and waits until those it has are done.
---@async
---@param options? { wait: boolean?, cancel: boolean?, timeout: number? } true, false, no limit
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"; `err.jobs` did not stop
function Executor:shutdown(options) end

---Counts.
---@return moonloop.Stats
function Executor:stats() end

---What runs, waits and is queued.
---@async
---@return moonloop.JobInfo[]
function Executor:jobs() end

---@class moonloop.Stats
---@field submitted integer ever handed over
---@field queued integer not started
---@field running integer on a thread now
---@field parked integer in a wait
---@field finished integer
---@field failed integer
---@field cancelled integer
---@field loops integer threads with a loop
---@field workers integer threads or children without one
---@field blocked? integer how often a job held its loop too long

---@class moonloop.JobInfo
---@field name string
---@field state string "queued", "running" or "parked"
---@field waits_for? string "sleep", "future", "http" ...
---@field since? number the time, of `moonloop.now()`, since which it does
---@field parent? string the job that spawned it
---@field submitted_at? string "file.lua:12"
---@field traceback? string
---@field runs_at? string on a thread of a pool, "file.lua:31"
---@field inside? string the C call in which it holds its thread, and the line that called it
---@field pid? integer of the child where it runs

---One thread or child of an executor, held. `<close>` lets it go.
---@class moonloop.Worker
---@field executor moonloop.Executor
---@field index integer
local Worker = {}

---Runs `f` there, waits, returns its values.
---@async
---@param f moonloop.JobLike
---@param ... any its arguments
---@return any ...
function Worker:call(f, ...) end

---Submits a job to this worker; they run in the order of their submits.
---@async
---@param job moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Future future
function Worker:submit(job, ...) end

---The same without waiting.
---@param job moonloop.JobLike
---@param ... any
---@return moonloop.Future? future
---@return moonloop.Error? err "busy" or "closed"
function Worker:try_submit(job, ...) end

---Lets it go. What was submitted is still done.
function Worker:close() end

---The process's default executor; made on first use.
---@return moonloop.Executor
function moonloop.get_event_loop() end

---Sets the default executor of all states.
---@param executor moonloop.Executor? an AsyncExecutor; nil: none
---@return moonloop.Executor? before
function moonloop.set_event_loop(executor) end

---The counts of the default executor.
---@return moonloop.Stats
function moonloop.stats() end

---The jobs of this state's loop, else of the default executor.
---@return moonloop.JobInfo[]
function moonloop.jobs() end

-- Generators ---------------------------------------------------------------------------------

---A generator on the default executor, for `for`. What `f` passes to `coroutine.yield` is an item,
---and it may wait. See [generators](generators.md).
---@param f moonloop.JobLike
---@param ... any its arguments
---@return moonloop.Generator
function moonloop.agen_to_gen(f, ...) end

---The same with options.
---@param spec moonloop.GeneratorSpec
---@return moonloop.Generator
function moonloop.generator(spec) end

---@class moonloop.GeneratorSpec: moonloop.JobSpec
---@field prefetch? integer items that are kept ready; default 0

---Callable, for `for`; `<close>`.
---@class moonloop.Generator
local Generator = {}

---The next item.
---@async
---@param timeout? number seconds; nothing is lost past them
---@return boolean? ok `true` and the values; `false` at the end; nil and an error past the timeout
---@return any ...
function Generator:next(timeout) end

---Like `next`; the values are what the yield returns at which the generator waits.
---@async
---@param ... any
---@return boolean? ok
---@return any ...
function Generator:send(...) end

---Like `next`; raises an error at that yield.
---@async
---@param err any
---@return boolean? ok
---@return any ...
function Generator:throw(err) end

---Ends it, and waits for its clean-up. Raises the error of that.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Generator:close(timeout) end

-- Between jobs and threads -------------------------------------------------------------------

---Permits. See [sync](sync.md).
---@param n integer permits, 0 or more
---@return moonloop.Semaphore
function moonloop.Semaphore(n) end

---@class moonloop.Semaphore
local Semaphore = {}

---Takes a permit.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Semaphore:acquire(timeout) end

---Takes a permit if one is free.
---@return boolean? ok `true`
---@return moonloop.Error? err "busy"
function Semaphore:try_acquire() end

---Gives permits.
---@param n? integer default 1
function Semaphore:release(n) end

---For a `<close>` variable: acquires, and releases as the block is left. Raises on its timeout.
---@async
---@param timeout? number seconds
---@return table closable
function Semaphore:hold(timeout) end

---Free permits.
---@return integer
function Semaphore:value() end

---A lock with an owner: a job, or the thread of a state outside of jobs.
---@return moonloop.Lock
function moonloop.Lock() end

---@class moonloop.Lock
local Lock = {}

---Takes the lock.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Lock:acquire(timeout) end

---Takes the lock if it is free.
---@return boolean? ok `true`
---@return moonloop.Error? err "busy"
function Lock:try_acquire() end

---Gives it back. For its owner.
function Lock:release() end

---For a `<close>` variable: acquires, and releases as the block is left. Raises on its timeout.
---@async
---@param timeout? number seconds
---@return table closable
function Lock:hold(timeout) end

---Whether somebody has it.
---@return boolean
function Lock:locked() end

---A flag to wait for.
---@return moonloop.Event
function moonloop.Event() end

---@class moonloop.Event
local Event = {}

---Sets it, and lets through everyone who waits.
function Event:set() end

---Clears it.
function Event:clear() end

---Whether it is set.
---@return boolean
function Event:is_set() end

---Waits until it is set.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Event:wait(timeout) end

---A condition with a lock.
---@param lock? moonloop.Lock default: one of its own
---@return moonloop.Condition
function moonloop.Condition(lock) end

---@class moonloop.Condition
local Condition = {}

---Takes the lock.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Condition:acquire(timeout) end

---Takes the lock if it is free.
---@return boolean? ok `true`
---@return moonloop.Error? err "busy"
function Condition:try_acquire() end

---Gives the lock back.
function Condition:release() end

---For a `<close>` variable: holds the lock.
---@async
---@param timeout? number seconds
---@return table closable
function Condition:hold(timeout) end

---Whether somebody has the lock.
---@return boolean
function Condition:locked() end

---Lets the lock go, waits to be notified, and has the lock again. For its owner.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Condition:wait(timeout) end

---Wakes the first who wait. For the lock's owner.
---@param n? integer default 1
function Condition:notify(n) end

---Wakes all who wait. For the lock's owner.
function Condition:notify_all() end

---A meeting of `n`.
---@param n integer
---@return moonloop.Barrier
function moonloop.Barrier(n) end

---@class moonloop.Barrier
local Barrier = {}

---Waits until `n` have come.
---@async
---@param timeout? number seconds
---@return integer? index 1 to n, in the order of arrival
---@return moonloop.Error? err "timeout" or "closed"
function Barrier:wait(timeout) end

---Sends away all who wait and all who come, with "closed".
function Barrier:abort() end

---Sends away who waits, and opens it again.
function Barrier:reset() end

---A queue.
---@param max? integer|{ max: integer?, order: "fifo"|"lifo"|"priority"|nil } default: unbounded, "fifo"
---@return moonloop.Queue
function moonloop.Queue(max) end

---@class moonloop.Queue
local Queue = {}

---Puts a value, not nil; waits while the queue is full.
---@async
---@param v any
---@param timeout? number seconds
---@param priority? number of a "priority" queue: the lowest comes first; default 0
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout" or "closed"
function Queue:put(v, timeout, priority) end

---Puts a value if there is room.
---@param v any
---@param priority? number
---@return boolean? ok `true`
---@return moonloop.Error? err "busy" or "closed"
function Queue:try_put(v, priority) end

---Takes a value.
---@async
---@param timeout? number seconds
---@return any v
---@return moonloop.Error? err "timeout" or "closed"
function Queue:get(timeout) end

---Takes a value if there is one.
---@return any v
---@return moonloop.Error? err "busy" or "closed"
function Queue:try_get() end

---One of the values that were taken is done.
function Queue:task_done() end

---Waits until every value that was put is done.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout"
function Queue:join(timeout) end

---Values that can be taken now.
---@return integer
function Queue:size() end

---Puts end with "closed"; gets too, once it is empty.
---@param options? { immediate: boolean? } drop what is in it
function Queue:shutdown(options) end

---A channel: a send waits for its receive, but for as many as its capacity. Callable, for `for`.
---@param capacity? integer default 0
---@return moonloop.Channel
function moonloop.Channel(capacity) end

---@class moonloop.Channel
local Channel = {}

---Sends a value, not nil.
---@async
---@param v any
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err "timeout" or "closed"
function Channel:send(v, timeout) end

---Sends a value if that can be done at once.
---@param v any
---@return boolean? ok `true`
---@return moonloop.Error? err "busy" or "closed"
function Channel:try_send(v) end

---Receives a value.
---@async
---@param timeout? number seconds
---@return any v
---@return moonloop.Error? err "timeout" or "closed"
function Channel:receive(timeout) end

---Receives a value if that can be done at once.
---@return any v
---@return moonloop.Error? err "busy" or "closed"
function Channel:try_receive() end

---Sends end with "closed"; receives too, once all was received.
function Channel:close() end

---Does exactly one of several sends and receives: `{ channel, "receive" }`, `{ channel, "send", v }`.
---@async
---@param cases table a list of them, and `timeout` in seconds
---@return integer? index of the one that was done; nil past the timeout
---@return any value what was received, or `true`
---@return moonloop.Error? err "timeout" or "closed"
function moonloop.select(cases) end

---A function of this state that other states may call; it runs here while this state waits.
---@param f function
---@return moonloop.Ref ref callable: waits, and returns what `f` returns
function moonloop.ref(f) end

---A function of one state that every state may call.
---@class moonloop.Ref

---A variable whose value belongs to the job that sets it, and to the jobs that it starts.
---@param default? any
---@return moonloop.Var
function moonloop.var(default) end

---@class moonloop.Var
local Var = {}

---The value, or the default.
---@return any
function Var:get() end

---Sets it for the rest of this job, and for the jobs that it starts.
---@param value any
function Var:set(value) end

---Calls `f` with the value set.
---@param value any
---@param f function
---@param ... any its arguments
---@return any ... what `f` returns
function Var:with(value, f, ...) end

-- Handlers -----------------------------------------------------------------------------------

---Sets the process's handler of errors that nobody asked for. It crosses, and must not wait.
---@param f? fun(err: any, info: moonloop.ErrorInfo) nil: print them
---@return function? before
function moonloop.on_error(f) end

---@class moonloop.ErrorInfo
---@field kind string "job", "callback" ...
---@field name? string the job's
---@field traceback? string
---@field submitted_at? string "file.lua:12"

---Sets the process's handler of loops that one job holds too long. It crosses, and must not wait.
---@param f? fun(info: moonloop.BlockedInfo) nil: print them
---@return function? before
function moonloop.on_blocked(f) end

---@class moonloop.BlockedInfo
---@field kind string "job" or "callback"
---@field name? string the job's
---@field submitted_at? string "file.lua:12"
---@field ms number so far
---@field traceback? string where it is
---@field inside? string the C call it is in, as far as is known

-- Traces -------------------------------------------------------------------------------------

---What happened when, on which thread: `ml.trace`. See [observing](observing.md#traces).
---@class moonloop.Trace
local Trace = {}

---Begins to trace the whole process, and forgets an earlier trace.
---@param options? moonloop.TraceOptions
---@return boolean began false: it was on, and goes on
function Trace.start(options) end

---@class moonloop.TraceOptions
---@field memory? integer bytes for events, of which the newest are kept: 64 MiB

---Traces no more. What was traced can still be dumped.
---@return boolean was whether it was on
function Trace.stop() end

---Writes what was traced up to now as Chrome trace events.
---@async
---@param path string of the file
---@return boolean? ok nil on an error
---@return table|moonloop.Error written `{ events =, dropped = }`, or the error
function Trace.dump(path) end

return moonloop
