// Losses, gradients and inner steps of T Conv4 networks on a CPU, for native.py.
//
// The tasks are divided among the threads here; a single task is computed by task.h and the headers that it includes.

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <system_error>
#include <vector>

#include "backward.h"
#include "forward.h"
#include "head.h"
#include "packing.h"
#include "update.h"

namespace {

// Threads and memory live as long as the process. A forked child has no threads: it makes its own.
struct Crew {
    Pool pool;
    std::vector<Arena> arenas;
    pid_t process = getpid();
};
std::mutex crew_lock;
Crew* crew = nullptr;

// Gives every thread the same number of tasks to itself; the others are shared by teams of threads.
template <class T>
int run_all(const Job& job) {
    for (std::int64_t i = 0; job.mode != LOGITS && i < job.tasks * job.batch; ++i) {
        if (job.labels[i] < 0 || job.labels[i] >= job.way) return 1;
    }
    std::lock_guard<std::mutex> hold(crew_lock);
    if (!crew || crew->process != getpid()) crew = new Crew;
    const int tasks = int(job.tasks);
    const int threads = int(std::max<std::int64_t>(1, std::min<std::int64_t>(job.threads, job.tasks * PARTS)));
    const int per_thread = tasks / threads, shared = tasks % threads;
    if (int(crew->arenas.size()) < 2 * threads) crew->arenas = std::vector<Arena>(std::size_t(2 * threads));
    struct Work {
        const Job& job;
        int per_thread, shared, threads;
        std::vector<std::unique_ptr<Task<T>>> single, teams;
        std::vector<Barrier> barriers;
    } work{job, per_thread, shared, threads, {}, {}, std::vector<Barrier>(std::size_t(shared))};
    for (int i = 0; per_thread > 0 && i < threads; ++i) {
        work.single.push_back(std::make_unique<Task<T>>(job, 1, crew->arenas[std::size_t(i)]));
    }
    for (int i = 0; i < shared; ++i) {
        Arena& arena = crew->arenas[std::size_t(threads + i)];
        work.teams.push_back(std::make_unique<Task<T>>(job, threads / shared + 1, arena));
    }
    crew->pool.run(
        threads,
        [](void* context, int rank) {
            Work& work = *static_cast<Work*>(context);
            Barrier none;
            for (int i = 0; i < work.per_thread; ++i) {
                work.single[std::size_t(rank)]->run(rank * work.per_thread + i, Team{0, 1, &none});
            }
            if (work.shared == 0) return;
            const int team = int(std::int64_t(rank) * work.shared / work.threads);
            int first = rank, last = rank;  // the ranks of this team
            while (first > 0 && int(std::int64_t(first - 1) * work.shared / work.threads) == team) --first;
            while (last + 1 < work.threads && int(std::int64_t(last + 1) * work.shared / work.threads) == team) ++last;
            work.teams[std::size_t(team)]->run(work.per_thread * work.threads + team,
                                               Team{rank - first, last - first + 1, &work.barriers[std::size_t(team)]});
        },
        &work);
    return 0;
}

}  // namespace

extern "C" {

// 0, or 1 for a label that is not a class, 2 out of memory, 3 no more threads.
int native_conv4_float(const Job* job) {
    try {
        return run_all<float>(*job);
    } catch (const std::bad_alloc&) {
        return 2;
    } catch (const std::system_error&) {
        return 3;
    }
}

int native_conv4_double(const Job* job) {
    try {
        return run_all<double>(*job);
    } catch (const std::bad_alloc&) {
        return 2;
    } catch (const std::system_error&) {
        return 3;
    }
}

}  // extern "C"
