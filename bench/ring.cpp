// The C++ peers of bench/ring.py: the same two measurements, once with our ring's layout and once with rigtorp's
// SPSCQueue (https://github.com/rigtorp/SPSCQueue, read in version 1.1), over the same kind of shared memory.
//
//     ring_cpp same|rigtorp spin|yield CPU CPU ROUND_TRIPS WINDOWS WINDOW SLOTS
//
// prints: p50 p99 p99.9 of the round trip in ns, then messages per second one way in the best window, committed one by
// one and EVENT at a time (rigtorp's queue has no such thing: one by one again).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vector>

using Word = std::int64_t;

struct alignas(64) Message {
    Word words[8];
};

static Word const EVENT = 8;

static bool yielding = false;

static inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

static inline void wait_once() {
    if (yielding)
        sched_yield();
    else
        relax();
}

static inline Word now_ns() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return Word(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

static inline void fill(Message &message, Word sequence) {
    for (Word k = 0; k < 8; ++k)
        message.words[k] = sequence;
}

static inline Word difference(const Message &message, Word sequence) {
    Word found = 0;
    for (Word k = 0; k < 8; ++k)
        found |= message.words[k] ^ sequence;
    return found;
}

// shm/ring.py, word for word: positions that never wrap, 128-byte lines, each side's cursors on a page of its own.
struct Same {
    struct Side {
        alignas(128) std::atomic<Word> cursor;
        alignas(128) Word next;
        Word cached;
        Word high_water;
    };
    alignas(4096) Side producer;
    alignas(4096) Side consumer;
    alignas(4096) Word mask;
    alignas(4096) Message slots[1];

    static std::size_t size(Word count) { return sizeof(Same) + count * sizeof(Message); }
    void start(Word count) { mask = count - 1; }

    inline void claim(Word count) {
        Word const end = producer.next + count;
        while (end - producer.cached > mask + 1) {
            producer.cached = consumer.cursor.load(std::memory_order_acquire);
            if (end - producer.cached > mask + 1)
                wait_once();
        }
    }

    inline void put(Word sequence) {
        Word const position = producer.next;
        producer.next = position + 1;
        fill(slots[position & mask], sequence);
    }

    inline void publish() { producer.cursor.store(producer.next, std::memory_order_release); }

    inline void send(Word sequence) {
        claim(1);
        put(sequence);
        publish();
    }

    inline void send_event(Word sequence) {
        claim(EVENT);
        for (Word k = 0; k < EVENT; ++k)
            put(sequence + k);
        publish();
    }

    // Read whatever waits, release it at once, return how many.
    inline Word receive(Word sequence, Word &bad) {
        Word const tail = consumer.cursor.load(std::memory_order_relaxed);
        Word waiting = consumer.cached - tail;
        if (waiting == 0) {
            consumer.cached = producer.cursor.load(std::memory_order_acquire);
            waiting = consumer.cached - tail;
            if (waiting > consumer.high_water)
                consumer.high_water = waiting;
        }
        if (waiting == 0) {
            wait_once();
            return 0;
        }
        for (Word k = 0; k < waiting; ++k)
            bad |= difference(slots[(tail + k) & mask], sequence + k);
        consumer.cursor.store(tail + waiting, std::memory_order_release);
        return waiting;
    }
};

// SPSCQueue 1.1: slot indices, one slot of slack, padding of one line around the slots, 64-byte lines.
struct Rigtorp {
    alignas(64) std::atomic<std::size_t> write_index;
    alignas(64) std::size_t read_index_cache;
    alignas(64) std::atomic<std::size_t> read_index;
    alignas(64) std::size_t write_index_cache;
    alignas(64) std::size_t capacity;
    alignas(64) Message slots[1];

    static std::size_t size(Word count) { return sizeof(Rigtorp) + (count + 3) * sizeof(Message); }
    void start(Word count) { capacity = count + 1; }

    inline void send(Word sequence) {
        auto const index = write_index.load(std::memory_order_relaxed);
        auto next = index + 1;
        if (next == capacity)
            next = 0;
        while (next == read_index_cache) {
            read_index_cache = read_index.load(std::memory_order_acquire);
            if (next == read_index_cache)
                wait_once();
        }
        fill(slots[index + 1], sequence);
        write_index.store(next, std::memory_order_release);
    }

    inline void send_event(Word sequence) {
        for (Word k = 0; k < EVENT; ++k)
            send(sequence + k);
    }

    inline Word receive(Word sequence, Word &bad) {
        auto const index = read_index.load(std::memory_order_relaxed);
        if (index == write_index_cache) {
            write_index_cache = write_index.load(std::memory_order_acquire);
            if (index == write_index_cache) {
                wait_once();
                return 0;
            }
        }
        bad |= difference(slots[index + 1], sequence);
        auto next = index + 1;
        if (next == capacity)
            next = 0;
        read_index.store(next, std::memory_order_release);
        return 1;
    }
};

// Receive a flood; messages per second in the best window: others on the machine can only slow a window down.
template <class Ring> static double drain(Ring *inbox, Word windows, Word window, Word &bad) {
    Word done = 0;
    double best = 0;
    for (Word n = 1; n <= windows; ++n) {
        Word const first = done, start = now_ns();
        while (done < n * window)
            done += inbox->receive(done, bad);
        best = std::max(best, double(done - first) * 1e9 / double(now_ns() - start));
    }
    return best;
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        perror("sched_setaffinity");
}

template <class Ring> static Ring *make(Word count) {
    void *memory = mmap(nullptr, Ring::size(count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        std::exit(1);
    }
    std::memset(memory, 0, Ring::size(count));
    auto *ring = static_cast<Ring *>(memory);
    ring->start(count);
    return ring;
}

template <class Ring> static void measure(int here, int there, Word trips, Word windows, Word window, Word count) {
    Ring *out = make<Ring>(count), *back = make<Ring>(count), *singles = make<Ring>(count), *events = make<Ring>(count);
    Word bad = 0;
    pid_t const child = fork();
    if (child == 0) {
        pin(there);
        for (Word n = 0; n < trips; ++n) {
            while (!out->receive(n, bad)) {
            }
            back->send(n + 1);
        }
        for (Word n = 0; n < windows * window; ++n)
            singles->send(n);
        for (Word n = 0; n < windows * window; n += EVENT)
            events->send_event(n);
        std::_Exit(bad != 0);
    }
    pin(here);
    std::vector<Word> took(trips);
    Word before = now_ns();
    for (Word n = 0; n < trips; ++n) {
        out->send(n);
        while (!back->receive(n + 1, bad)) {
        }
        Word const after = now_ns();
        took[n] = after - before;
        before = after;
    }
    double const single = drain(singles, windows, window, bad), event = drain(events, windows, window, bad);
    int status = 0;
    waitpid(child, &status, 0);
    if (bad || status) {
        std::fprintf(stderr, "a message arrived damaged\n");
        std::exit(1);
    }
    std::sort(took.begin(), took.end());
    std::printf("%lld %lld %lld %.0f %.0f\n", (long long)took[trips / 2], (long long)took[trips * 99 / 100],
                (long long)took[trips * 999 / 1000], single, event);
}

int main(int argc, char **argv) {
    if (argc != 9)
        return 2;
    yielding = !std::strcmp(argv[2], "yield");
    auto *run = std::strcmp(argv[1], "same") ? measure<Rigtorp> : measure<Same>;
    run(std::atoi(argv[3]), std::atoi(argv[4]), std::atoll(argv[5]), std::atoll(argv[6]), std::atoll(argv[7]),
        std::atoll(argv[8]));
}
