/* Makes writes to a database fail in a running process (LD_PRELOAD). The file named by DISK_FAULTS
 * says what fails at this moment: "enospc" is every write and every growth, "room N" is every write that
 * makes a file longer once all files together have grown by N bytes, "eio" is every sync, "stuck" makes
 * every sync wait for as long as it is said, "nolink" is every hard link; any other content is no fault.
 * Links apart, only files with ".db" in their name are concerned, not standard output, sockets or the
 * key. Linux with glibc. */
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

/* What is said at this moment. Leaves errno alone. */
static void said(char text[4096])
{
	int before = errno;
	const char *control = getenv("DISK_FAULTS");
	int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t length = file < 0 ? 0 : read(file, text, 4095);
	text[length > 0 ? length : 0] = 0;
	if (file >= 0)
		close(file);
	errno = before;
}

/* What is said at this moment of the file behind `fd`. Leaves errno alone. */
static void said_of(int fd, char text[4096])
{
	int before = errno;
	char link[64];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, text, 4095);
	text[length > 0 ? length : 0] = 0;
	errno = before;
	const char *name = strrchr(text, '/');
	if (name && strstr(name, ".db"))
		said(text);
	else
		text[0] = 0;
}

/* Whether `mode` is switched on for the file behind `fd`. */
static int fails(int fd, const char *mode)
{
	char text[4096];
	said_of(fd, text);
	return strncmp(text, mode, strlen(mode)) == 0;
}

/* Whether a sync fails; one that is stuck waits before. */
static int sync_fails(int fd)
{
	while (fails(fd, "stuck"))
		usleep(2000);
	return fails(fd, "eio");
}

/* Whether there are no hard links. */
static int has_no_links(void)
{
	char text[4096];
	said(text);
	return strncmp(text, "nolink", 6) == 0;
}

/* Whether there is no room for the file behind `fd` to be `end` bytes long. */
static int is_full(int fd, off64_t end)
{
	static long grown;
	char text[4096];
	struct stat64 now;
	long room;
	said_of(fd, text);
	if (strncmp(text, "enospc", 6) == 0)
		return 1;
	if (sscanf(text, "room %ld", &room) != 1 || fstat64(fd, &now) != 0 || end <= now.st_size)
		return 0;
	if (__atomic_add_fetch(&grown, end - now.st_size, __ATOMIC_SEQ_CST) <= room)
		return 0;
	__atomic_sub_fetch(&grown, end - now.st_size, __ATOMIC_SEQ_CST);
	return 1;
}

#define WRAP(result, name, params, args, is, error)                           \
	result name params                                                        \
	{                                                                         \
		static result(*real) params;                                          \
		if (!real)                                                            \
			*(void **)&real = dlsym(RTLD_NEXT, #name);                        \
		if (is) {                                                             \
			errno = error;                                                    \
			return -1;                                                        \
		}                                                                     \
		return real args;                                                     \
	}

WRAP(ssize_t, write, (int fd, const void *bytes, size_t length), (fd, bytes, length),
     fails(fd, "enospc"), ENOSPC)
WRAP(ssize_t, pwrite, (int fd, const void *bytes, size_t length, off_t at), (fd, bytes, length, at),
     is_full(fd, at + (off64_t)length), ENOSPC)
WRAP(ssize_t, pwrite64, (int fd, const void *bytes, size_t length, off64_t at),
     (fd, bytes, length, at), is_full(fd, at + (off64_t)length), ENOSPC)
WRAP(int, fsync, (int fd), (fd), sync_fails(fd), EIO)
WRAP(int, fdatasync, (int fd), (fd), sync_fails(fd), EIO)
WRAP(int, link, (const char *old, const char *new), (old, new), has_no_links(), EPERM)
WRAP(int, linkat, (int from, const char *old, int to, const char *new, int flags),
     (from, old, to, new, flags), has_no_links(), EPERM)

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
