/*
 * fuse-native for Bun: the published fuse-native.c, included unchanged, with what stands around it replaced.
 *
 *   before it   uv.h (libuv's part), byte strings, libfuse by function pointers, threads that are cleaned up
 *   after it    three answers that the published ones cannot give, and the end of a session told to JavaScript
 *
 * docs/decisions/0007-fuse-native-under-bun.md has the reasons.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 29

#include <dlfcn.h>
#include <fcntl.h>
#include <napi-macros.h>
#include <node_api.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "glibc-baseline.h"

#include <fuse.h>
#include <fuse_lowlevel.h>

/*
 * A file name is bytes, not UTF-8. As Latin-1, byte n is character n in both directions, so that JavaScript gets
 * and gives byte strings; as UTF-8, a name that is not UTF-8 would become another name.
 */
#define napi_create_string_utf8 napi_create_string_latin1
#define napi_get_value_string_utf8 napi_get_value_string_latin1

/*
 * libfuse is not linked but carried: the executable is one file and must run where no libfuse 2 is installed. Its
 * image stands in this module's read-only data and is loaded out of an anonymous file.
 */
static struct {
  void *handle;
  __typeof__(fuse_get_context) *get_context;
  __typeof__(fuse_mount) *mount;
  __typeof__(fuse_unmount) *unmount;
  __typeof__(fuse_new) *new;
  __typeof__(fuse_destroy) *destroy;
  __typeof__(fuse_loop_mt) *loop_mt;
  __typeof__(fuse_session_remove_chan) *session_remove_chan;
} libfuse;

/* What mount(2) left in errno when libfuse's fuse_mount last failed on the JavaScript thread; it returns only NULL. */
static int mount_errno;

static struct fuse_chan *mount_and_note_errno(const char *mountpoint, struct fuse_args *args) {
  errno = 0;
  struct fuse_chan *channel = libfuse.mount(mountpoint, args);
  mount_errno = channel == NULL ? errno : 0;
  return channel;
}

/* As published, a session that libfuse refuses leaves its mount behind, served by nobody. */
static struct fuse *new_or_unmount(const char *mountpoint, struct fuse_chan *channel, struct fuse_args *args,
                                   const struct fuse_operations *operations, size_t size, void *data) {
  struct fuse *fuse = libfuse.new(channel, args, operations, size, data);
  if (fuse == NULL) libfuse.unmount(mountpoint, channel);
  return fuse;
}

#define fuse_get_context libfuse.get_context
#define fuse_mount mount_and_note_errno
#define fuse_unmount libfuse.unmount
#define fuse_new(channel, args, operations, size, data) new_or_unmount(mnt, channel, args, operations, size, data)
#define fuse_destroy libfuse.destroy
#define fuse_loop_mt libfuse.loop_mt
#define fuse_session_remove_chan libfuse.session_remove_chan

/*
 * libfuse starts a thread for each request that finds all others waiting, and ends those beyond ten once they are
 * idle. As published, each thread leaves its JavaScript buffer and its async handle behind, and the end of the
 * session thread is seen by nobody.
 */
static void release_thread_locals(void *locals);
static void *run_session(void *session);
#define pthread_key_create(key, destructor) pthread_key_create(key, release_thread_locals)
#define pthread_create(thread, attributes, start, argument) pthread_create(thread, attributes, run_session, argument)

/* Our own initialiser, below, runs the published one and adds to it. */
#undef NAPI_MODULE
#define NAPI_MODULE(name, initialiser)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "fuse-native.c"
#pragma GCC diagnostic pop

#undef pthread_key_create
#undef pthread_create

/* ---- the end of a thread, and of a session ---------------------------------------------------------------- */

static void free_thread_locals(uv_async_t *async) {
  fuse_thread_locals_t *locals = async->data;
  uv_async_release(async);
  sem_destroy(&locals->sem);
  napi_delete_reference(async->env, locals->self); /* the memory of `locals` itself: not to be touched after */
}

/* Runs in the thread that ends, where JavaScript's references are out of reach. */
static void release_thread_locals(void *data) {
  fuse_thread_locals_t *locals = data;
  locals->async.callback = free_thread_locals;
  uv_async_send(&locals->async);
}

/* The entry of `handlers` that fuse-native leaves free (it has 34 operations and room for 35). */
#define HANDLER_SESSION_ENDED 34

static void end_session(uv_async_t *async) {
  fuse_thread_t *ft = (fuse_thread_t *) ((char *) async - offsetof(fuse_thread_t, async));
  napi_env env = ft->env;
  napi_handle_scope scope;
  napi_value context;
  napi_value callback;

  pthread_join(ft->thread, NULL);
  uv_async_release(async);
  sem_destroy(&ft->sem);
  pthread_mutex_destroy(&ft->mut);
  pthread_attr_destroy(&ft->attr);

  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, ft->ctx, &context);
  napi_get_reference_value(env, ft->handlers[HANDLER_SESSION_ENDED], &callback);
  napi_delete_reference(env, ft->ctx);
  napi_delete_reference(env, ft->malloc);
  for (int i = 0; i < 35; i++) {
    if (ft->handlers[i] != NULL) napi_delete_reference(env, ft->handlers[i]);
  }
  NAPI_MAKE_CALLBACK(env, NULL, context, callback, 0, NULL, NULL) /* JavaScript lets go of `ft` here */
  napi_close_handle_scope(env, scope);
}

static void *run_session(void *data) {
  fuse_thread_t *ft = data;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL); /* signals are for Bun's threads; libfuse's inherit the mask */

  start_fuse_thread(ft);

  ft->async.callback = end_session; /* fuse_loop_mt has joined its threads: nobody else uses it now */
  uv_async_send(&ft->async);
  return NULL;
}

/* ---- answers ---------------------------------------------------------------------------------------------- */

/*
 * As the published one, but with the modification time in nanoseconds, before 1970 too, and one time for all
 * three: words 12 to 14 are nanoseconds, low and high half of the signed seconds.
 */
NAPI_METHOD(imgcred_signal_getattr) {
  NAPI_ARGV(3)
  NAPI_ARGV_BUFFER_CAST(fuse_thread_locals_t *, l, 0)
  NAPI_ARGV_INT32(res, 1)
  NAPI_ARGV_BUFFER_CAST(uint32_t *, ints, 2)
  populate_stat(ints, l->stat);
  struct timespec time = { .tv_sec = (time_t) (int64_t) (((uint64_t) ints[14] << 32) | ints[13]),
                           .tv_nsec = ints[12] };
  l->stat->st_atim = l->stat->st_mtim = l->stat->st_ctim = time;
  l->res = res;
  uv_sem_post(&(l->sem));
  return NULL;
}

/*
 * A whole directory in one buffer: for each entry inode and mode (32 bits each, this machine's byte order), the
 * name's length (16 bits) and its bytes. The published one takes an array of strings and an array of stat arrays,
 * which for 100,000 entries is 200,000 objects.
 */
NAPI_METHOD(imgcred_signal_readdir) {
  NAPI_ARGV(4)
  NAPI_ARGV_BUFFER_CAST(fuse_thread_locals_t *, l, 0)
  NAPI_ARGV_INT32(res, 1)
  NAPI_ARGV_BUFFER_CAST(const unsigned char *, entries, 2)
  NAPI_ARGV_UINT32(length, 3)
  uint32_t at = 0;
  while (length <= entries_len && length - at >= 10) {
    struct stat stat = { 0 };
    uint32_t word;
    uint16_t name_length;
    char name[256];
    memcpy(&word, entries + at, 4);
    stat.st_ino = word;
    memcpy(&word, entries + at + 4, 4);
    stat.st_mode = word;
    memcpy(&name_length, entries + at + 8, 2);
    at += 10;
    if (name_length > 255 || name_length > length - at) break;
    memcpy(name, entries + at, name_length);
    name[name_length] = '\0';
    at += name_length;
    if (l->readdir_filler((void *) l->buf, name, &stat, 0) == 1) break;
  }
  l->res = res;
  uv_sem_post(&(l->sem));
  return NULL;
}

NAPI_METHOD(imgcred_mount_errno) {
  (void) info;
  NAPI_RETURN_INT32(mount_errno)
}

/* ---- libfuse ---------------------------------------------------------------------------------------------- */

#ifdef LIBFUSE_IMAGE
__asm__(".pushsection .rodata\n"
        ".balign 64\n"
        ".hidden libfuse_image\n.globl libfuse_image\nlibfuse_image:\n"
        ".incbin \"" LIBFUSE_IMAGE "\"\n"
        ".hidden libfuse_image_end\n.globl libfuse_image_end\nlibfuse_image_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const char libfuse_image[] __attribute__((visibility("hidden")));
extern const char libfuse_image_end[] __attribute__((visibility("hidden")));

/* An anonymous file; where the kernel forbids executable ones (vm.memfd_noexec), a file that has no name any more. */
static int open_anonymous_file(void) {
  /* By number, since glibc has had the function only from 2.27 on. 0x10 is MFD_EXEC, which Linux knows from 6.3 on. */
  int fd = (int) syscall(SYS_memfd_create, "libfuse.so.2", MFD_CLOEXEC | 0x10);
  if (fd < 0) fd = (int) syscall(SYS_memfd_create, "libfuse.so.2", MFD_CLOEXEC);
  if (fd >= 0) return fd;
  const char *directory = getenv("TMPDIR");
  return open(directory == NULL || *directory == '\0' ? "/tmp" : directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0700);
}

static void *load_carried_libfuse(void) {
  char path[64];
  void *handle = NULL;
  int fd = open_anonymous_file();
  if (fd < 0) return NULL;
  size_t size = (size_t) (libfuse_image_end - libfuse_image);
  size_t done = 0;
  while (done < size) {
    ssize_t written = write(fd, libfuse_image + done, size - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    done += (size_t) written;
  }
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  if (done == size) handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  close(fd);
  return handle;
}
#else
static void *load_carried_libfuse(void) { return NULL; }
#endif

/* With the version that the headers mean: libfuse keeps its old interfaces, and dlsym finds an old fuse_new. */
#define LIBFUSE_SYMBOL(field, name, version) \
  if ((libfuse.field = (__typeof__(libfuse.field)) dlvsym(handle, name, version)) == NULL) { \
    napi_throw_error(env, "ELIBACC", "libfuse has no " name); \
    return NULL; \
  }

/*
 * Loads libfuse: the file named by the argument, or the image that is carried here, or (built without one) the
 * system's. The first argument that is a string replaces the carried library: libfuse is LGPL, and its user may
 * bring another build.
 */
NAPI_METHOD(imgcred_load_libfuse) {
  NAPI_ARGV(1)
  if (libfuse.handle != NULL) return NULL;
  napi_valuetype type = napi_undefined;
  if (argc > 0) napi_typeof(env, argv[0], &type);
  void *handle = NULL;
  if (type == napi_string) {
    NAPI_ARGV_UTF8(path, 4096, 0)
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  } else {
    handle = load_carried_libfuse();
    if (handle == NULL) handle = dlopen("libfuse.so.2", RTLD_NOW | RTLD_LOCAL);
  }
  if (handle == NULL) {
    const char *reason = dlerror();
    napi_throw_error(env, "ELIBACC", reason == NULL ? "libfuse.so.2 cannot be loaded" : reason);
    return NULL;
  }
  LIBFUSE_SYMBOL(get_context, "fuse_get_context", "FUSE_2.8")
  LIBFUSE_SYMBOL(mount, "fuse_mount", "FUSE_2.6")
  LIBFUSE_SYMBOL(unmount, "fuse_unmount", "FUSE_2.6")
  LIBFUSE_SYMBOL(new, "fuse_new", "FUSE_2.6")
  LIBFUSE_SYMBOL(destroy, "fuse_destroy", "FUSE_2.2")
  LIBFUSE_SYMBOL(loop_mt, "fuse_loop_mt", "FUSE_2.2")
  LIBFUSE_SYMBOL(session_remove_chan, "fuse_session_remove_chan", "FUSE_2.6")
  libfuse.handle = handle;
  return NULL;
}

static void export_additions(napi_env env, napi_value exports) {
  NAPI_EXPORT_FUNCTION(imgcred_load_libfuse)
  NAPI_EXPORT_FUNCTION(imgcred_mount_errno)
  NAPI_EXPORT_FUNCTION(imgcred_signal_getattr)
  NAPI_EXPORT_FUNCTION(imgcred_signal_readdir)
}

NAPI_MODULE_INIT() {
  napi_macros_init(env, exports);
  export_additions(env, exports);
  return exports;
}
