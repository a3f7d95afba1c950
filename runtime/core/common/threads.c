/* Workers beside the calling thread, for the time of one call. The pool lives in the caller's
 * arena; a build without TATVPR_THREADS (microcontrollers) runs on the caller alone.
 *
 * Between two pieces of work a worker spins for some microseconds, then sleeps: a model hands out
 * about three pieces a block, and waking a sleeper costs as much as a small layer.
 */
#include "core.h"

#if defined(TATVPR_THREADS)

#include <pthread.h>
#include <signal.h>

enum { SPINS = 4000 };

typedef struct seat {
    struct tatvpr_pool *pool;
    int32_t number;
    pthread_t thread;
} seat;

struct tatvpr_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_cond_t idle;
    tatvpr_work work;
    void *argument;
    int32_t items;
    int32_t next;         /* atomic: the first item not yet taken */
    int32_t busy;         /* atomic: workers that have not finished this piece */
    uint32_t generation;  /* atomic: counts pieces of work */
    int32_t stop;
    int32_t workers;      /* the calling thread, number 0, included */
    seat seats[TATVPR_MAX_THREADS];
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void drain(tatvpr_pool *pool, int32_t worker) {
    for (;;) {
        const int32_t item = __atomic_fetch_add(&pool->next, 1, __ATOMIC_RELAXED);
        if (item >= pool->items) {
            return;
        }
        pool->work(pool->argument, item, worker);
    }
}

static uint32_t await_work(tatvpr_pool *pool, uint32_t seen) {
    for (int32_t i = 0; i < SPINS; i++) {
        const uint32_t now = __atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE);
        if (now != seen) {
            return now;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (__atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE) == seen) {
        pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return __atomic_load_n(&pool->generation, __ATOMIC_ACQUIRE);
}

static void *serve(void *argument) {
    const seat *own = (const seat *)argument;
    tatvpr_pool *pool = own->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_work(pool, seen);
        if (pool->stop) {
            return NULL;
        }
        drain(pool, own->number);
        if (__atomic_sub_fetch(&pool->busy, 1, __ATOMIC_ACQ_REL) == 0) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->idle);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

static void announce(tatvpr_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    __atomic_add_fetch(&pool->generation, 1, __ATOMIC_ACQ_REL);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void await_idle(tatvpr_pool *pool) {
    for (int32_t i = 0; i < SPINS; i++) {
        if (__atomic_load_n(&pool->busy, __ATOMIC_ACQUIRE) == 0) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while (__atomic_load_n(&pool->busy, __ATOMIC_ACQUIRE) != 0) {
        pthread_cond_wait(&pool->idle, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
}

int tatvpr_threads_valid(int32_t threads) { return threads >= 0 && threads <= TATVPR_MAX_THREADS; }

int32_t tatvpr_workers(const tatvpr_context *c) { return c->pool == NULL ? 1 : c->pool->workers; }

size_t tatvpr_pool_bytes(int32_t threads) { return threads > 1 ? sizeof(tatvpr_pool) : 0; }

void tatvpr_parallel(const tatvpr_context *c, tatvpr_work work, void *argument, int32_t items) {
    tatvpr_pool *pool = c->pool;
    if (pool == NULL || items == 1) {
        for (int32_t i = 0; i < items; i++) {
            work(argument, i, 0);
        }
        return;
    }
    pool->work = work;
    pool->argument = argument;
    pool->items = items;
    __atomic_store_n(&pool->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->busy, pool->workers - 1, __ATOMIC_RELAXED);
    announce(pool);
    drain(pool, 0);
    await_idle(pool);
}

/* Ends and joins the first `count` threads of the pool. */
static void dismiss(tatvpr_pool *pool, int32_t count) {
    pool->stop = 1;
    announce(pool);
    for (int32_t i = 1; i < count; i++) {
        pthread_join(pool->seats[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
}

tatvpr_status tatvpr_pool_start(tatvpr_context *c, void *memory, int32_t threads) {
    c->pool = NULL;
    if (threads <= 1) {
        return TATVPR_OK;
    }
    tatvpr_pool *pool = (tatvpr_pool *)memory;
    tatvpr_zero(pool, sizeof(*pool));
    pool->workers = threads;
    if (pthread_mutex_init(&pool->mutex, NULL) != 0 || pthread_cond_init(&pool->wake, NULL) != 0 ||
        pthread_cond_init(&pool->idle, NULL) != 0) {
        return TATVPR_ERR_THREADS;
    }
    /* Signals are the host program's business, not the workers'. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int32_t started = 1;
    for (; started < threads; started++) {
        seat *s = &pool->seats[started];
        s->pool = pool;
        s->number = started;
        if (pthread_create(&s->thread, NULL, serve, s) != 0) {
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started < threads) {
        dismiss(pool, started);
        return TATVPR_ERR_THREADS;
    }
    c->pool = pool;
    return TATVPR_OK;
}

void tatvpr_pool_stop(tatvpr_context *c) {
    if (c->pool != NULL) {
        dismiss(c->pool, c->pool->workers);
        c->pool = NULL;
    }
}

#else

int tatvpr_threads_valid(int32_t threads) { return threads == 0 || threads == 1; }

int32_t tatvpr_workers(const tatvpr_context *c) {
    (void)c;
    return 1;
}

size_t tatvpr_pool_bytes(int32_t threads) {
    (void)threads;
    return 0;
}

void tatvpr_parallel(const tatvpr_context *c, tatvpr_work work, void *argument, int32_t items) {
    (void)c;
    for (int32_t i = 0; i < items; i++) {
        work(argument, i, 0);
    }
}

tatvpr_status tatvpr_pool_start(tatvpr_context *c, void *memory, int32_t threads) {
    (void)memory;
    (void)threads;
    c->pool = NULL;
    return TATVPR_OK;
}

void tatvpr_pool_stop(tatvpr_context *c) { c->pool = NULL; }

#endif
