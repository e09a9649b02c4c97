/* System calls that a test cannot make from JavaScript. Each prints what it saw; any failure is exit code 1. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  return 1;
}

static int put(const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t done = write(1, bytes, length);
    if (done < 0) return fail("write");
    bytes += done;
    length -= (size_t) done;
  }
  return 0;
}

/* The file through a mapping, last page first: the kernel's read-ahead does not help. */
static int mapped(int fd, int flags) {
  struct stat st;
  if (fstat(fd, &st) != 0) return fail("fstat");
  char *map = mmap(NULL, (size_t) st.st_size, PROT_READ, flags, fd, 0);
  if (map == MAP_FAILED) return fail("mmap");
  volatile char sink = 0;
  for (off_t at = st.st_size - 1; at >= 0; at -= 4096) sink ^= map[at];
  (void) sink;
  return put(map, (size_t) st.st_size);
}

static int sent(int fd) {
  off_t at = 0;
  ssize_t done;
  while ((done = sendfile(1, fd, &at, 1 << 20)) > 0) continue;
  return done < 0 ? fail("sendfile") : 0;
}

static int direct(int fd) {
  void *buffer;
  ssize_t done;
  if (posix_memalign(&buffer, 4096, 1 << 20) != 0) return fail("posix_memalign");
  while ((done = read(fd, buffer, 1 << 20)) > 0) {
    if (put(buffer, (size_t) done) != 0) return 1;
  }
  return done < 0 ? fail("read") : 0;
}

/* Positions of an open file: beyond the end reads nothing, SEEK_END is the size, a hole is at the end at the latest. */
static int seeks(int fd) {
  char byte;
  off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0 || read(fd, &byte, 1) != 0) return fail("end");
  if (lseek(fd, end + 100, SEEK_SET) != end + 100 || read(fd, &byte, 1) != 0) return fail("beyond");
  if (pread(fd, &byte, 1, end - 1) != 1) return fail("last byte");
  off_t data = lseek(fd, 0, SEEK_DATA);
  off_t hole = lseek(fd, 0, SEEK_HOLE);
  off_t after = lseek(fd, end, SEEK_DATA);
  printf("%lld %lld %lld %d\n", (long long) end, (long long) data, (long long) hole, after == -1 && errno == ENXIO);
  return 0;
}

/* Goes back to each remembered place of a directory, in reverse, and must find the same entry there. */
static int seekdirs(const char *path) {
  DIR *directory = opendir(path);
  struct dirent *entry;
  size_t count = 0;
  size_t room = 1 << 20;
  long *places = malloc(room * sizeof(*places));
  uint64_t *inodes = malloc(room * sizeof(*inodes));
  if (directory == NULL || places == NULL || inodes == NULL) return fail("opendir");
  for (;;) {
    long place = telldir(directory);
    if ((entry = readdir(directory)) == NULL) break;
    if (count == room) return fail("too many");
    places[count] = place;
    inodes[count++] = entry->d_ino;
  }
  for (size_t i = count; i-- > 0;) {
    if (i % 97 != 0 && i > 100) continue;
    seekdir(directory, places[i]);
    entry = readdir(directory);
    if (entry == NULL || entry->d_ino != inodes[i]) return fail("another entry after seekdir");
  }
  rewinddir(directory);
  size_t again = 0;
  while (readdir(directory) != NULL) again++;
  printf("%zu %zu\n", count, again);
  return 0;
}

/* Each entry: inode, type, name. */
static int entries(const char *path) {
  DIR *directory = opendir(path);
  struct dirent *entry;
  if (directory == NULL) return fail("opendir");
  while ((entry = readdir(directory)) != NULL) {
    printf("%llu %d %s%c", (unsigned long long) entry->d_ino, entry->d_type, entry->d_name, 0);
  }
  return 0;
}

/* Down a path too long for any one system call, one component at a time. */
static int descend(const char *start, const char *name) {
  if (chdir(start) != 0) return fail(start);
  int levels = 0;
  while (chdir(name) == 0) levels++;
  int fd = open("bottom", O_RDONLY);
  char text[64] = { 0 };
  if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0) return fail("bottom");
  printf("%d %s", levels, text);
  return 0;
}

/* Reads what was open before it was removed. */
static int unlinked(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return fail("open");
  if (unlink(path) != 0) return fail("unlink");
  if (access(path, F_OK) == 0) return fail("still there");
  return sent(fd);
}

/* An attribute's length and the names' length, each followed by what a buffer that is too small gets. */
static int xattrs(const char *path, const char *name) {
  char small[2];
  ssize_t length = getxattr(path, name, NULL, 0);
  if (length < 0) return fail("getxattr");
  const char *value_answer = getxattr(path, name, small, sizeof(small)) == -1 && errno == ERANGE ? "ERANGE" : "?";
  ssize_t names = listxattr(path, NULL, 0);
  if (names < 0) return fail("listxattr");
  const char *names_answer = listxattr(path, small, sizeof(small)) == -1 && errno == ERANGE ? "ERANGE" : "?";
  printf("%zd %s %zd %s\n", length, value_answer, names, names_answer);
  return 0;
}

/* Who this program runs as, and with which capabilities. */
static int identity(void) {
  printf("uid %d euid %d\n", (int) getuid(), (int) geteuid());
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
    if (strncmp(line, "CapEff", 6) == 0) fputs(line, stdout);
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "identity";
  const char *path = argc > 2 ? argv[2] : "";
  if (strcmp(what, "identity") == 0) return identity();
  if (strcmp(what, "seekdir") == 0) return seekdirs(path);
  if (strcmp(what, "entries") == 0) return entries(path);
  if (strcmp(what, "descend") == 0 && argc > 3) return descend(path, argv[3]);
  if (strcmp(what, "xattr") == 0 && argc > 3) return xattrs(path, argv[3]);
  if (strcmp(what, "unlinked") == 0) return unlinked(path);
  int fd = open(path, O_RDONLY | (strcmp(what, "direct") == 0 ? O_DIRECT : 0));
  if (fd < 0) return fail(path);
  if (strcmp(what, "mmap-private") == 0) return mapped(fd, MAP_PRIVATE);
  if (strcmp(what, "mmap-shared") == 0) return mapped(fd, MAP_SHARED);
  if (strcmp(what, "sendfile") == 0) return sent(fd);
  if (strcmp(what, "direct") == 0) return direct(fd);
  if (strcmp(what, "seek") == 0) return seeks(fd);
  fprintf(stderr, "no probe %s\n", what);
  return 2;
}
