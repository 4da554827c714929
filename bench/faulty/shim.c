/* Let the nth write, fsync or rename below a folder fail, or end the process there.

   Loaded with LD_PRELOAD. fault_arm() names the folder and what is to happen; fault_count() says
   how many such calls there have been since. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long at, calls;
static int error; /* what the call fails with; 0 ends the process instead */
static int lasting; /* whether every later call fails, too */

void fault_arm(const char *below, long nth, int number, int all) {
    snprintf(folder, sizeof folder, "%s/", below);
    at = nth, error = number, lasting = all, calls = 0;
}

long fault_count(void) { return calls; }

static int is_below(const char *path) {
    return folder[0] && path && !strncmp(path, folder, strlen(folder));
}

static int concerns(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Whether this call is to fail: 1 sets errno; 2 asks for the end of the process. */
static int due(void) {
    long now = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (!at || now < at || (now > at && !lasting)) return 0;
    if (!error) return 2;
    errno = error;
    return 1;
}

static void end(void) { kill(getpid(), SIGKILL), pause(); }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITES(name, parameters, arguments, half) \
    ssize_t name parameters { \
        int what = concerns(fd) ? due() : 0; \
        if (what == 1) return -1; \
        if (what == 2) { REAL(name) half; end(); } \
        return REAL(name) arguments; \
    }

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t place), (fd, data, size, place),
       (fd, data, size / 2, place))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size, place),
       (fd, data, size / 2, place))
WRITES(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count),
       (fd, parts, count / 2))

#define CALLS(name, parameters, arguments, concerned) \
    int name parameters { \
        int what = concerned ? due() : 0; \
        if (what == 1) return -1; \
        if (what == 2) end(); \
        return REAL(name) arguments; \
    }

CALLS(fsync, (int fd), (fd), concerns(fd))
CALLS(fdatasync, (int fd), (fd), concerns(fd))
CALLS(ftruncate, (int fd, off_t size), (fd, size), concerns(fd))
CALLS(ftruncate64, (int fd, off64_t size), (fd, size), concerns(fd))
CALLS(rename, (const char *from, const char *to), (from, to), is_below(to))
