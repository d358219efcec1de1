/* The wall clock of one process, as a test has it, by LD_PRELOAD: CLOCK_REALTIME is ahead by what the file
 * $WRONG_CLOCK says, and adjtimex(2) answers as if somebody disciplined the clock, or nobody. All other clocks are the
 * kernel's: as on a machine whose clock is set, which a test must not do to the one that it runs on.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct told {
    int64_t ahead_ns;
    int64_t is_synchronised;
};

static const volatile struct told *told;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("WRONG_CLOCK"), O_RDONLY | O_CLOEXEC);
    void *place = mmap(NULL, sizeof(struct told), PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || place == MAP_FAILED) abort();
    told = place;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = now->tv_sec * 1000000000LL + now->tv_nsec + told->ahead_ns;
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (place) *place = exact.tv_sec;
    return exact.tv_sec;
}

int adjtimex(struct timex *answer) {
    memset(answer, 0, sizeof *answer);
    answer->status = told->is_synchronised ? STA_PLL : STA_UNSYNC;
    answer->maxerror = told->is_synchronised ? 20000 : 16000000;
    return told->is_synchronised ? TIME_OK : TIME_ERROR;
}
