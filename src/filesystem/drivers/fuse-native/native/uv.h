/*
 * The part of libuv that fuse-native uses, without libuv.
 *
 * Bun has no event loop of libuv's: an addon that calls uv_sem_init and its kin is aborted with "unsupported uv
 * function". What fuse-native wants of libuv is small, though, and all of it exists elsewhere: semaphores and
 * mutexes are POSIX's, and a uv_async_t, "run this function on the JavaScript thread", is a Node-API
 * threadsafe function.
 *
 * Two differences are harmless here and would not be in general. A uv_async_t merges sends that were not yet
 * delivered, a threadsafe function delivers each; fuse-native never has two on the way, since the sender waits
 * for the answer. And uv_default_loop() stands for the environment of the mount in whose function it is called.
 */
#ifndef IMGCRED_UV_H
#define IMGCRED_UV_H

#include <errno.h>
#include <node_api.h>
#include <pthread.h>
#include <semaphore.h>

typedef sem_t uv_sem_t;
typedef pthread_mutex_t uv_mutex_t;
typedef struct uv_async_s uv_async_t;
typedef uv_async_t uv_handle_t;
typedef void (*uv_async_cb)(uv_async_t *);

struct uv_async_s {
  void *data;
  uv_async_cb callback;
  napi_env env;
  napi_threadsafe_function function;
};

#define uv_default_loop() (ft->env)

static int uv_sem_init(uv_sem_t *sem, unsigned value) { return sem_init(sem, 0, value) == 0 ? 0 : -errno; }
static void uv_sem_post(uv_sem_t *sem) { sem_post(sem); }
static void uv_sem_wait(uv_sem_t *sem) {
  while (sem_wait(sem) != 0 && errno == EINTR) continue;
}

static int uv_mutex_init(uv_mutex_t *mutex) { return -pthread_mutex_init(mutex, NULL); }
static void uv_mutex_lock(uv_mutex_t *mutex) { pthread_mutex_lock(mutex); }
static void uv_mutex_unlock(uv_mutex_t *mutex) { pthread_mutex_unlock(mutex); }

static void uv_async_deliver(napi_env env, napi_value callback, void *context, void *data) {
  (void) callback;
  (void) data;
  uv_async_t *async = context;
  if (env != NULL) async->callback(async); /* NULL: the environment is going away */
}

static int uv_async_init(napi_env env, uv_async_t *async, uv_async_cb callback) {
  napi_handle_scope scope;
  napi_value name;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return -ENOMEM;
  async->callback = callback;
  async->env = env;
  napi_status status = napi_create_string_latin1(env, "fuse-native", NAPI_AUTO_LENGTH, &name);
  if (status == napi_ok) {
    status = napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, async, uv_async_deliver,
                                             &async->function);
  }
  napi_close_handle_scope(env, scope);
  return status == napi_ok ? 0 : -ENOMEM;
}

static int uv_async_send(uv_async_t *async) {
  return napi_call_threadsafe_function(async->function, NULL, napi_tsfn_nonblocking) == napi_ok ? 0 : -ENOMEM;
}

static void uv_unref(uv_handle_t *handle) { napi_unref_threadsafe_function(handle->env, handle->function); }

/* libuv closes a handle with uv_close; the wrapper releases what uv_async_init made. */
static void uv_async_release(uv_async_t *async) {
  napi_release_threadsafe_function(async->function, napi_tsfn_release);
}

#endif
