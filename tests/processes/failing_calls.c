/* Makes one system call on the files of a store fail, and counts them all; loaded into a process by LD_PRELOAD.
 *
 * What belongs to the store is every file whose path begins with the database's, and the directory that it lies in.
 * Nothing is counted before calls_watch() was called, and nothing fails that is not in the plan.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What calls are good for: a plan names those that count. */
enum { READS = 1, WRITES = 2, SYNCS = 4, LOCKS = 8, OPENS = 16, NAMES = 32, LOOKS = 64, MAPS = 128, CREATES = 256,
    UNLOCKS = 512, RECORD_LOCKS = 1024 };

/* What happens at the call that was planned. */
enum { FAIL, SHORT, MOVE, REPLACE, MOVE_LOG };

static struct {
    char store[4000], directory[4000];
    size_t length;
    int at, error, calls, lasts, what;
} plan;

static int watching, counted, fired;
static char fired_at[200];
static const char *ours[65536]; /* which file of the store each descriptor is; NULL: none */

void calls_watch(const char *store)
{
    snprintf(plan.store, sizeof plan.store, "%s", store);
    plan.length = strlen(store);
    snprintf(plan.directory, sizeof plan.directory, "%s", store);
    *strrchr(plan.directory, '/') = 0;
    plan.at = 0;
    counted = fired = 0;
    watching = 1;
}

/* From now on the call number `at` of those in `calls` fails with `error`; if it `lasts`, all after it, until calls_mend(). */
void calls_fail(int at, int error, int calls, int lasts, int what)
{
    plan.at = at, plan.error = error, plan.calls = calls, plan.lasts = lasts, plan.what = what;
    counted = fired = 0;
}

void calls_mend(void) { plan.at = 0; }
int calls_counted(void) { return counted; }
int calls_has_fired(void) { return fired; }
const char *calls_fired_at(void) { return fired_at; }

/* Does what somebody does to the files of another process; returns whether there was anything to do it to. */
static int meddle(void)
{
    char from[4100], to[4100];
    const char *suffix = plan.what == MOVE_LOG ? "-wal" : "";
    snprintf(from, sizeof from, "%s%s", plan.store, suffix);
    snprintf(to, sizeof to, "%s/away%s", plan.directory, suffix);
    if (plan.what != REPLACE)
        return rename(from, to) == 0;
    if (link(from, to))
        return 0;
    snprintf(to, sizeof to, "%s/other", plan.directory);
    return rename(to, from) == 0;
}

/* Counts a call, and says whether it is to fail. */
static int fails(const char *name, const char *file, int calls)
{
    if (!watching || !plan.at || !(calls & plan.calls))
        return 0;
    int number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (number < plan.at || (fired && !plan.lasts))
        return 0;
    if (plan.what >= MOVE) {
        int before = errno;
        if (!fired && meddle()) {
            snprintf(fired_at, sizeof fired_at, "%s%s", name, file);
            fired = 1;
        }
        errno = before;
        return 0;
    }
    if (!fired) {
        snprintf(fired_at, sizeof fired_at, "%s%s", name, file);
        fired = 1;
    }
    errno = plan.error;
    return 1;
}

static int is_ours(const char *path)
{
    return watching && path && (!strncmp(path, plan.store, plan.length) || !strcmp(path, plan.directory));
}

static const char *which(const char *path)
{
    static const char *const files[] = {" -wal", " -shm", " -lock", " -journal"};
    if (!is_ours(path))
        return NULL;
    if (strlen(path) < plan.length)
        return " dir";
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(path + plan.length, files[i] + 1))
            return files[i];
    return " db";
}

static int on_path(const char *name, const char *path, int calls)
{
    return is_ours(path) && fails(name, which(path), calls);
}

static int on_file(const char *name, int file, int calls)
{
    return file >= 0 && file < (int)(sizeof ours / sizeof *ours) && ours[file] && fails(name, ours[file], calls);
}

static int opened(const char *path, int file)
{
    if (file >= 0 && file < (int)(sizeof ours / sizeof *ours))
        ours[file] = which(path);
    return file;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define MODE(flags) int mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); \
    mode = va_arg(rest, int); va_end(rest); }
#define OPENING(flags) (OPENS | ((flags) & O_CREAT ? CREATES : 0))

#define OPEN(name) int name(const char *path, int flags, ...) { REAL(name); MODE(flags); \
    return on_path("open", path, OPENING(flags)) ? -1 : opened(path, real(path, flags, mode)); }
OPEN(open)
OPEN(open64)

#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { REAL(name); MODE(flags); \
    return on_path("open", path, OPENING(flags)) ? -1 : opened(path, real(folder, path, flags, mode)); }
OPENAT(openat)
OPENAT(openat64)

int close(int file)
{
    REAL(close);
    int bad = on_file("close", file, OPENS);
    int error = errno;
    if (file >= 0 && file < (int)(sizeof ours / sizeof *ours))
        ours[file] = NULL;
    int result = real(file);
    if (bad)
        errno = error;
    return bad ? -1 : result;
}

ssize_t read(int file, void *to, size_t size)
{
    REAL(read);
    return on_file("read", file, READS) ? -1 : real(file, to, size);
}

#define PREAD(name, offset_type) ssize_t name(int file, void *to, size_t size, offset_type offset) { REAL(name); \
    return on_file("pread", file, READS) ? -1 : real(file, to, size, offset); }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

ssize_t write(int file, const void *from, size_t size)
{
    REAL(write);
    if (!on_file("write", file, WRITES))
        return real(file, from, size);
    return plan.what == SHORT && size > 1 ? real(file, from, size / 2) : -1;
}

/* A short write is no error: whoever writes the rest then meets the full disk, if it lasts. */
#define PWRITE(name, offset_type) ssize_t name(int file, const void *from, size_t size, offset_type offset) { \
    REAL(name); \
    if (!on_file("pwrite", file, WRITES)) return real(file, from, size, offset); \
    return plan.what == SHORT && size > 1 ? real(file, from, size / 2, offset) : -1; }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name, said, calls) int name(int file) { REAL(name); \
    return on_file(said, file, calls) ? -1 : real(file); }
ON_FILE(fsync, "fsync", SYNCS)
ON_FILE(fdatasync, "fdatasync", SYNCS)

int ftruncate(int file, off_t size)
{
    REAL(ftruncate);
    return on_file("ftruncate", file, WRITES) ? -1 : real(file, size);
}

int ftruncate64(int file, off64_t size)
{
    REAL(ftruncate64);
    return on_file("ftruncate", file, WRITES) ? -1 : real(file, size);
}

int fchmod(int file, mode_t mode)
{
    REAL(fchmod);
    return on_file("fchmod", file, NAMES) ? -1 : real(file, mode);
}

int flock(int file, int operation)
{
    REAL(flock);
    int unlocks = operation & LOCK_UN;
    return on_file(unlocks ? "flock, unlocking" : "flock", file, unlocks ? UNLOCKS : LOCKS) ? -1 : real(file, operation);
}

static int cannot_lock(int file, int command, const struct flock *lock)
{
    if (command != F_SETLK && command != F_GETLK)
        return 0;
    int unlocks = lock->l_type == F_UNLCK;
    return on_file(unlocks ? "fcntl, unlocking" : "fcntl", file, unlocks ? UNLOCKS : RECORD_LOCKS);
}

#define FCNTL(name) int name(int file, int command, ...) { REAL(name); va_list rest; va_start(rest, command); \
    void *argument = va_arg(rest, void *); va_end(rest); \
    return cannot_lock(file, command, argument) ? -1 : real(file, command, argument); }
FCNTL(fcntl)
FCNTL(fcntl64)

int unlink(const char *path)
{
    REAL(unlink);
    return on_path("unlink", path, NAMES) ? -1 : real(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    return on_path("unlink", path, NAMES) ? -1 : real(folder, path, flags);
}

int access(const char *path, int mode)
{
    REAL(access);
    return on_path("access", path, LOOKS) ? -1 : real(path, mode);
}

#define STAT(name, buffer) int name(const char *path, struct buffer *to) { REAL(name); \
    return on_path("stat", path, LOOKS) ? -1 : real(path, to); }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

#define STATAT(name, buffer) int name(int folder, const char *path, struct buffer *to, int flags) { REAL(name); \
    return on_path("stat", path, LOOKS) ? -1 : real(folder, path, to, flags); }
STATAT(fstatat, stat)
STATAT(fstatat64, stat64)

#define FSTAT(name, buffer) int name(int file, struct buffer *to) { REAL(name); \
    return on_file("fstat", file, LOOKS) ? -1 : real(file, to); }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

#define MMAP(name, offset_type) void *name(void *at, size_t size, int protection, int flags, int file, \
    offset_type offset) { REAL(name); \
    return on_file("mmap", file, MAPS) ? MAP_FAILED : real(at, size, protection, flags, file, offset); }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
