/*
 * Binds to the first versions of functions that later glibcs gave a new one, most of them when libpthread and
 * libdl became part of libc (2.34) with nothing else changed. Otherwise an executable built on a new system would
 * ask for that system's glibc wherever it runs, while Bun itself is content with 2.17.
 */
#ifndef IMGCRED_GLIBC_BASELINE_H
#define IMGCRED_GLIBC_BASELINE_H

#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__)
#define BASELINE(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
#define BASELINE(name) __asm__(".symver " #name "," #name "@GLIBC_2.17");
#else
#define BASELINE(name)
#endif

BASELINE(dlerror)
BASELINE(dlopen)
BASELINE(dlvsym)
BASELINE(pthread_create)
BASELINE(pthread_getspecific)
BASELINE(pthread_join)
BASELINE(pthread_key_create)
BASELINE(pthread_setspecific)
BASELINE(pthread_sigmask)
BASELINE(sem_destroy)
BASELINE(sem_init)
BASELINE(sem_post)
BASELINE(sem_wait)

#endif
