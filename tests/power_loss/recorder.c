/* Records what a process does to the files of one directory: LD_PRELOAD=recorder.so RECORDER_DIRECTORY=... RECORDER_LOG=...
 *
 * Each operation that can change what is on the disk, or make it durable, is one entry of the log, with its data, written
 * by one append, so that the entries of several threads and processes stand in the order in which things happened. A
 * change is logged once it is made, a flush when it begins and again when it is done: so an entry that stands before the
 * beginning of a flush is one that the flush covers for certain. What is written to the file "marks" is a mark, logged
 * before it is made: so that no mark comes later in the log than in truth.
 *
 * RECORDER_KILL=N and RECORDER_KILL_KINDS=wS kill the process (signal 9) after the entry that is its Nth of these kinds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct entry {
    char what;
    char unused[3];
    uint32_t process;
    uint32_t name_length;
    uint32_t data_length;
    int64_t number; /* an offset or a size */
};

static int log_file = -1;
static char directory[PATH_MAX];
static size_t directory_length;
static long kill_after;
static const char *kill_kinds;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORDER_DIRECTORY"), *log = getenv("RECORDER_LOG"), *count = getenv("RECORDER_KILL");
    if (path == NULL || log == NULL || realpath(path, directory) == NULL) return;
    directory_length = strlen(directory);
    kill_after = count == NULL ? 0 : atol(count);
    kill_kinds = getenv("RECORDER_KILL_KINDS");
    /* By the system call, as everything of the recorder's own. */
    log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log_file < 0) abort();
}

static void record(char what, const char *name, int64_t number, const void *data, size_t length) {
    int error = errno;
    struct entry head = {what, {0}, (uint32_t)getpid(), (uint32_t)strlen(name), (uint32_t)length, number};
    struct iovec parts[3] = {
        {&head, sizeof head}, {(void *)name, head.name_length}, {(void *)data, length},
    };
    ssize_t whole = (ssize_t)(sizeof head + head.name_length + length);
    if (syscall(SYS_writev, log_file, parts, 3) != whole) abort();
    if (kill_after && strchr(kill_kinds, what) != NULL && __sync_sub_and_fetch(&kill_after, 1) == 0) {
        syscall(SYS_kill, getpid(), SIGKILL);
    }
    errno = error;
}

/* The name within the directory, "." for the directory itself, NULL for what is elsewhere. */
static const char *name_of(const char *path) {
    if (log_file < 0 || strncmp(path, directory, directory_length) != 0) return NULL;
    if (path[directory_length] == '\0') return ".";
    return path[directory_length] == '/' ? path + directory_length + 1 : NULL;
}

static const char *name_of_file(int file, char *path) {
    char link[64];
    if (log_file < 0) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = '\0';
    return name_of(path);
}

#define REAL(type, name, ...)                                      \
    static type (*real)(__VA_ARGS__);                              \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int open_and_record(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    const char *name = flags & O_CREAT ? name_of(path) : NULL;
    int is_new = name != NULL && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int file = real(path, flags, mode);
    if (file >= 0 && is_new) record('c', name, 0, NULL, 0);
    if (file >= 0 && !is_new && flags & O_TRUNC && (name = name_of(path)) != NULL) record('t', name, 0, NULL, 0);
    return file;
}

#define OPEN(function)                                             \
    int function(const char *path, int flags, ...) {               \
        va_list arguments;                                         \
        va_start(arguments, flags);                                \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                         \
        REAL(int, #function, const char *, int, ...);              \
        return open_and_record(real, path, flags, mode);           \
    }
OPEN(open)
OPEN(open64)

#define PWRITE(function)                                           \
    ssize_t function(int file, const void *data, size_t length, off_t offset) { \
        char path[PATH_MAX];                                       \
        REAL(ssize_t, #function, int, const void *, size_t, off_t); \
        ssize_t written = real(file, data, length, offset);        \
        const char *name = written > 0 ? name_of_file(file, path) : NULL; \
        if (name != NULL) record('w', name, offset, data, (size_t)written); \
        return written;                                            \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int file, const void *data, size_t length) {
    char path[PATH_MAX];
    REAL(ssize_t, "write", int, const void *, size_t);
    const char *name = name_of_file(file, path);
    if (name != NULL) record(strcmp(name, "marks") == 0 ? 'm' : '?', name, 0, data, length);
    return real(file, data, length);
}

#define FTRUNCATE(function)                                        \
    int function(int file, off_t size) {                           \
        char path[PATH_MAX];                                       \
        REAL(int, #function, int, off_t);                          \
        int result = real(file, size);                             \
        const char *name = result == 0 ? name_of_file(file, path) : NULL; \
        if (name != NULL) record('t', name, size, NULL, 0);        \
        return result;                                             \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define SYNC(function)                                             \
    int function(int file) {                                       \
        char path[PATH_MAX];                                       \
        REAL(int, #function, int);                                 \
        const char *name = name_of_file(file, path);               \
        if (name != NULL) record('s', name, 0, NULL, 0);           \
        int result = real(file);                                   \
        if (name != NULL && result == 0) record('S', name, 0, NULL, 0); \
        return result;                                             \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int result = real(path);
    const char *name = result == 0 ? name_of(path) : NULL;
    if (name != NULL) record('u', name, 0, NULL, 0);
    return result;
}

/* What nobody uses so far: a recording that has one of these is refused. */

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (name_of(from) != NULL) record('?', name_of(from), 0, NULL, 0);
    if (name_of(to) != NULL) record('?', name_of(to), 0, NULL, 0);
    return real(from, to);
}

#define UNKNOWN(type, function, parameters, arguments, ...)        \
    type function parameters {                                     \
        char path[PATH_MAX];                                       \
        REAL(type, #function, __VA_ARGS__);                        \
        const char *name = name_of_file(file, path);               \
        if (name != NULL) record('?', name, 0, NULL, 0);           \
        return real arguments;                                     \
    }
UNKNOWN(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count), int,
        const struct iovec *, int)
UNKNOWN(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), (file, parts, count, at), int,
        const struct iovec *, int, off_t)
UNKNOWN(int, fallocate, (int file, int mode, off_t at, off_t length), (file, mode, at, length), int, int, off_t, off_t)
UNKNOWN(int, posix_fallocate, (int file, off_t at, off_t length), (file, at, length), int, off_t, off_t)
