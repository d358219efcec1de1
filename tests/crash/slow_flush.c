/* Preloaded before libc: every flush takes `flush_delay_ms` longer, as on a memory card that is busy with itself. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

volatile int flush_delay_ms = 0;
volatile int flushes = 0;

static int flush(long call, int fd) {
    struct timespec pause = {flush_delay_ms / 1000, (flush_delay_ms % 1000) * 1000000L};
    __atomic_add_fetch(&flushes, 1, __ATOMIC_RELAXED);
    nanosleep(&pause, NULL);
    return (int)syscall(call, fd);
}

int fsync(int fd) { return flush(SYS_fsync, fd); }
int fdatasync(int fd) { return flush(SYS_fdatasync, fd); }
