/* Moves the wall clock of a running process (LD_PRELOAD). The file named by CLOCK_OFFSET says by how many
 * seconds, forth or back; monotonic time is left alone. Linux with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* The offset that is said at this moment. Leaves errno alone. */
static long offset(void)
{
	int before = errno;
	const char *name = getenv("CLOCK_OFFSET");
	char text[64] = {0};
	int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;

	if (file >= 0) {
		if (read(file, text, sizeof(text) - 1) < 0)
			text[0] = 0;
		close(file);
	}
	errno = before;
	return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int (*real)(clockid_t, struct timespec *) =
		(int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int result = real(clock, now);

	if (result == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += offset();
	return result;
}
