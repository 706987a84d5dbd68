/* Writes down what a program does to the files of one folder, so that a power cut can be tried at every moment of it.
 *
 * cc -shared -fPIC disklog.c -o disklog.so -ldl; then LD_PRELOAD=disklog.so DISKLOG_DIR=folder DISKLOG_TO=log program
 *
 * Each operation is done and written down under one lock, so that the log has the order in which things were done. A
 * record is a head (below) and `length` bytes: what was written, or names with a zero behind each. A file is known by the
 * number of its inode. Memory maps are not seen: the one of SQLite (-shm) is left out, it is made anew after a cut. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CREATED = 1, WRITTEN, CUT, SYNCED, FOLDER_SYNCED, MOVED, DROPPED };
struct head { uint64_t what, file, offset, length; };

#define FDS 4096
static char watched[FDS]; /* 1 for a file of the folder that is written to, 2 for the folder itself */
static char folder[PATH_MAX];
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *named = getenv("DISKLOG_DIR"), *to = getenv("DISKLOG_TO");
    if (!named || !to || strlen(named) >= sizeof folder) return;
    strcpy(folder, named);
    log_fd = fcntl(open(to, O_WRONLY | O_CREAT | O_APPEND, 0644), F_DUPFD_CLOEXEC, 1000);
}

static int inside(const char *path) {
    return log_fd >= 0 && !strncmp(path, folder, strlen(folder)) && !strstr(path, "-shm");
}

static void note(uint64_t what, uint64_t file, uint64_t offset, const void *data, uint64_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    struct head head = {what, file, offset, length};
    if (real(log_fd, &head, sizeof head) != sizeof head) abort();
    if (length && real(log_fd, data, length) != (ssize_t)length) abort();
}

static uint64_t inode(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static int is_file(int fd) { return fd >= 0 && fd < FDS && watched[fd] == 1; }

static void opened(int fd, const char *path, int flags, int was_there) {
    if (fd < 0 || fd >= FDS) return;
    watched[fd] = !inside(path) ? 0 : flags & O_DIRECTORY ? 2 : (flags & O_ACCMODE) != O_RDONLY;
    if (!strcmp(path, folder)) watched[fd] = 2; /* SQLite opens a folder as it opens a file */
    if (!is_file(fd)) return;
    if (!was_there) note(CREATED, inode(fd), 0, path, strlen(path) + 1);
    if (flags & O_TRUNC) note(CUT, inode(fd), 0, NULL, 0);
}

static int do_open(const char *path, int flags, int mode) {
    REAL(int, open64, const char *, int, ...);
    pthread_mutex_lock(&lock);
    int was_there = !access(path, F_OK), fd = real(path, flags, mode);
    opened(fd, path, flags, was_there);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) int mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); \
    mode = va_arg(rest, int); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return do_open(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return do_open(path, flags, mode); }

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < FDS) watched[fd] = 0;
    return real(fd);
}

static ssize_t done(int fd, const void *data, ssize_t count, off64_t offset) {
    if (count > 0) note(WRITTEN, inode(fd), offset, data, count);
    return count;
}

ssize_t write(int fd, const void *data, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!is_file(fd)) return real(fd, data, count);
    pthread_mutex_lock(&lock);
    ssize_t result = real(fd, data, count);
    done(fd, data, result, lseek(fd, 0, SEEK_CUR) - (result > 0 ? result : 0));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (!is_file(fd)) return real(fd, data, count, offset);
    pthread_mutex_lock(&lock);
    ssize_t result = done(fd, data, real(fd, data, count, offset), offset);
    pthread_mutex_unlock(&lock);
    return result;
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

int ftruncate64(int fd, off64_t size) {
    REAL(int, ftruncate64, int, off64_t);
    if (!is_file(fd)) return real(fd, size);
    pthread_mutex_lock(&lock);
    int result = real(fd, size);
    if (!result) note(CUT, inode(fd), size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*real)(int)) {
    if (fd < 0 || fd >= FDS || !watched[fd]) return real(fd);
    pthread_mutex_lock(&lock);
    int result = real(fd);
    if (!result) note(watched[fd] == 2 ? FOLDER_SYNCED : SYNCED, inode(fd), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int fd) { REAL(int, fsync, int); return synced(fd, real); }
int fdatasync(int fd) { REAL(int, fdatasync, int); return synced(fd, real); }

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (!inside(from)) return real(from, to);
    char names[2 * PATH_MAX];
    size_t length = snprintf(names, sizeof names, "%s%c%s", from, 0, to) + 1;
    pthread_mutex_lock(&lock);
    int result = real(from, to);
    if (!result) note(MOVED, 0, 0, names, length);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (!inside(path)) return real(path);
    pthread_mutex_lock(&lock);
    int result = real(path);
    if (!result) note(DROPPED, 0, 0, path, strlen(path) + 1);
    pthread_mutex_unlock(&lock);
    return result;
}
