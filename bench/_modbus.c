/* What libmodbus costs, for bench/modbus.py to compare with: reads one block as fast as the far end answers.
 *
 *     _modbus tcp PORT REGISTERS SECONDS
 *     _modbus rtu DEVICE BAUD REGISTERS SECONDS
 *
 * Prints transactions, seconds and CPU seconds. libmodbus keeps no gap between frames: on a
 * line it waits 3.5 characters (1.75 ms above 19200 Bd) before each question, as the specification has it.
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int is_tcp = argc == 5 && !strcmp(argv[1], "tcp");
    if (!is_tcp && argc != 6)
        return 2;
    int baud = is_tcp ? 0 : atoi(argv[3]);
    int count = atoi(argv[argc - 2]);
    double seconds = atof(argv[argc - 1]);
    double gap = is_tcp ? 0 : baud > 19200 ? 1.75e-3 : 35.0 / baud;
    modbus_t *m = is_tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2])) : modbus_new_rtu(argv[2], baud, 'N', 8, 1);
    uint16_t words[MODBUS_MAX_READ_REGISTERS];
    modbus_set_slave(m, 1);
    modbus_set_response_timeout(m, 2, 0);
    if (modbus_connect(m)) {
        fprintf(stderr, "%s\n", modbus_strerror(errno));
        return 1;
    }
    long done = 0;
    double began = now(), ended = began;
    while (ended - began < seconds) {
        if (gap > 0) {
            struct timespec wait = {0, (long)(gap * 1e9)};
            nanosleep(&wait, NULL);
        }
        if (modbus_read_input_registers(m, 0, count, words) != count) {
            fprintf(stderr, "%s\n", modbus_strerror(errno));
            return 1;
        }
        done++;
        ended = now();
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%ld %f %f\n", done, ended - began,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return 0;
}
