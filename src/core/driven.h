/*
** driven.h: an executor whose loop has no thread of its own: the thread that made it drives
** it, between other things that it does. That thread calls all of these.
**
** D1  Whatever runs for the executor runs inside of mli_driven_begin and mli_driven_step.
** D2  After mli_executor_shutdown it is stepped until it has ended: its `ended` settles.
*/
#ifndef MLI_DRIVEN_H
#define MLI_DRIVEN_H

#include "executor.h"

void mli_driven_begin(mli_executor *ex);
/* Does what there is to do. False: it has ended, and is not to be stepped again. */
bool mli_driven_step(mli_executor *ex);
/* Waits until there may be something to do, or for so many ms. */
void mli_driven_sleep(mli_executor *ex, uint64_t deadline);
/* Steps and sleeps until `f` is settled: ML_OK, or ML_TIMEOUT at the deadline. */
ml_status mli_driven_wait(mli_executor *ex, mli_future *f, uint64_t deadline);

#endif
