// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "../unit/store/crash_fs.hpp"
#include "base/clock.hpp"
#include "loop/loop.hpp"
#include "machine.hpp"
#include "mutation.hpp"

/// The simulation: agent and server run in one thread in virtual time. The objects beside this file stand, under the same
/// headers, for what touches time, threads and the outer world; everything else is the real code. One number seeds all.
namespace blkferry::sim {

inline constexpr std::uint64_t us = 1'000;
inline constexpr std::uint64_t ms = 1'000'000;
inline constexpr std::uint64_t second = 1'000'000'000;

/// One end of a simulated connection.
struct End {
    struct Piece {
        std::uint64_t ready_ns = 0;
        std::vector<std::byte> bytes;
    };
    std::weak_ptr<End> peer;
    std::deque<Piece> arriving;      ///< what the peer sent, in order
    std::size_t held = 0;            ///< bytes in `arriving`
    std::uint64_t last_ready_ns = 0;
    bool wrapped = false;            ///< a TLS stream owns it
    bool greeted = false;            ///< its handshake is over
    bool closed = false;             ///< this end is gone
    bool eof = false;                ///< the peer closed in order; behind `arriving`
    bool reset = false;              ///< broken, both ways
    bool silent = false;             ///< what is sent from here disappears
    [[nodiscard]] bool readable(std::uint64_t now) const;
    [[nodiscard]] bool writable() const;
};

/// How the link behaves now.
struct Weather {
    std::uint64_t latency_ns = 200 * us;
    std::uint64_t bytes_per_ms = 100'000;
    bool refuses = false;  ///< no new connections
};

/// Faults of the disks, as chances of 1 in n; 0: never.
struct Chances {
    std::uint64_t source_read_error = 0;
    std::uint64_t short_io = 0;
    std::uint64_t journal_error = 0;
    std::uint64_t store_error = 0;   ///< of every operation of the store
    std::uint64_t short_stream = 0;  ///< a read or a write of the connection moves only some bytes
    bool store_full = false;         ///< nothing of the store can grow
};

/// File systems that were frozen for a cut, and what the disks held when they were thawed.
struct Frozen {
    std::uint64_t mark = 0;
    std::size_t life = 0;  ///< of the source, from 0
    std::vector<std::vector<std::byte>> media;
};

class Source;

class World final : public Clock {
public:
    explicit World(std::uint64_t seed);
    ~World() override;
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    [[nodiscard]] std::uint64_t monotonic_ns() const noexcept override { return now; }
    [[nodiscard]] std::uint64_t realtime_ns() const noexcept override { return now + wall_offset; }

    /// Uniform in [0, n); n > 0.
    [[nodiscard]] std::uint64_t below(std::uint64_t n) { return random() % n; }
    [[nodiscard]] std::uint64_t between(std::uint64_t from, std::uint64_t to) { return from + below(to - from + 1); }
    [[nodiscard]] bool one_in(std::uint64_t n) { return n != 0 && below(n) == 0; }

    using Key = std::pair<std::uint64_t, std::uint64_t>;
    Key at(std::uint64_t when_ns, std::function<void()> what);
    Key in(std::uint64_t delay_ns, std::function<void()> what) { return at(now + delay_ns, std::move(what)); }
    void forget(Key key) { events.erase(key); }
    /// One event; false if there is none.
    bool step();

    template <class... A>
    void trace(fmt::format_string<A...> text, A&&... args) {
        note(fmt::format(text, std::forward<A>(args)...));
    }
    void note(const std::string& text);

    std::uint64_t now = second;
    std::uint64_t wall_offset = 1'700'000'000 * second;
    std::mt19937_64 random;
    std::map<Key, std::function<void()>> events;
    std::uint64_t ids = 0;
    bool tracing = false;
    std::uint64_t digest = 0;            ///< of the trace: two runs of one seed agree in it

    std::vector<loop::detail::Core*> cores;
    std::map<int, std::shared_ptr<End>> ends;
    std::function<void(Fd)> accept;      ///< of the listening server
    std::weak_ptr<int> listening;        ///< expired: nobody listens
    Weather weather;
    Chances chances;
    Mutation mutation = Mutation::none;
    test::CrashFs disk;                  ///< the server's
    std::unique_ptr<producer::Machine> machine;
    std::uint64_t ring_bytes = 0;
    std::map<const void*, std::shared_ptr<struct PoolQueue>> pools;
    Source* source = nullptr;
    std::vector<Frozen> frozen;
    /// Handlers of a control socket by its path: takes a request, answers with its last line.
    using Answer = std::function<void(bool ok, const std::string& line)>;
    std::map<std::string, std::function<void(const std::string& request, Answer answer)>> sockets;
};

/// The one that runs now.
extern World* world;

/// Looks at every watch of every loop and calls back those that are ready; false if none was.
bool poll_watches();

}  // namespace blkferry::sim
