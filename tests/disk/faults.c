/* Makes writes to a database fail in a running process (LD_PRELOAD). The file named by DISK_FAULTS
 * says what fails at this moment: "enospc" is every write and every growth, "eio" is every sync; any
 * other content is no fault. Only files with ".db" in their name are concerned, not standard output,
 * sockets or the key. Linux with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* Whether `mode` is switched on for the file behind `fd`. Leaves errno alone. */
static int fails(int fd, const char *mode)
{
	int before = errno, is = 0;
	const char *control = getenv("DISK_FAULTS");
	char text[4096] = "", link[64];
	ssize_t length = 0;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (control && (length = readlink(link, text, sizeof(text) - 1)) > 0) {
		text[length] = 0;
		const char *name = strrchr(text, '/');
		if (name && strstr(name, ".db")) {
			int file = open(control, O_RDONLY | O_CLOEXEC);
			length = file < 0 ? 0 : read(file, text, sizeof(text) - 1);
			text[length > 0 ? length : 0] = 0;
			if (file >= 0)
				close(file);
			is = strncmp(text, mode, strlen(mode)) == 0;
		}
	}
	errno = before;
	return is;
}

#define WRAP(result, name, params, args, mode, error)                         \
	result name params                                                        \
	{                                                                         \
		static result(*real) params;                                          \
		if (!real)                                                            \
			*(void **)&real = dlsym(RTLD_NEXT, #name);                        \
		if (fails(fd, mode)) {                                                \
			errno = error;                                                    \
			return -1;                                                        \
		}                                                                     \
		return real args;                                                     \
	}

WRAP(ssize_t, write, (int fd, const void *bytes, size_t length), (fd, bytes, length), "enospc",
     ENOSPC)
WRAP(ssize_t, pwrite, (int fd, const void *bytes, size_t length, off_t at), (fd, bytes, length, at),
     "enospc", ENOSPC)
WRAP(ssize_t, pwrite64, (int fd, const void *bytes, size_t length, off64_t at),
     (fd, bytes, length, at), "enospc", ENOSPC)
WRAP(int, fsync, (int fd), (fd), "eio", EIO)
WRAP(int, fdatasync, (int fd), (fd), "eio", EIO)

/* Only growing needs room. */
int ftruncate64(int fd, off64_t length)
{
	static int (*real)(int, off64_t);
	struct stat64 now;
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ftruncate64");
	if (fstat64(fd, &now) == 0 && length > now.st_size && fails(fd, "enospc")) {
		errno = ENOSPC;
		return -1;
	}
	return real(fd, length);
}

int ftruncate(int fd, off_t length)
{
	return ftruncate64(fd, length);
}
