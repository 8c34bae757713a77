// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "client.hpp"
#include "server/server.hpp"

namespace blkferry::server::test {

/// Keeps the lines.
class MemoryLog final : public Log {
public:
    void write(Level level, std::string_view line) override;
    [[nodiscard]] std::size_t count(std::string_view part) const;
    [[nodiscard]] std::string all() const;
    /// Waits (at most 30 s) until a line has this part.
    [[nodiscard]] bool wait_for(std::string_view part) const;

private:
    mutable std::mutex lock_;
    std::string text_;
};

/// A folder with a CA and certificates, a store, and servers over it, each in a thread of its own.
class Harness {
public:
    Harness();
    ~Harness();
    Harness(const Harness&) = delete;
    Harness& operator=(const Harness&) = delete;

    /// Starts a server on a free port of the loopback.
    void start();
    /// Ends it as a crash would: nothing is flushed, closed or checkpointed by intention.
    void crash();
    /// Ends it in order.
    void stop();
    /// Runs a function in the server's loop and returns its value.
    template <class F>
    auto in_loop(F f) {
        std::promise<decltype(f(*server_))> promise;
        auto future = promise.get_future();
        loop_->post([&] {
            if constexpr (std::is_void_v<decltype(f(*server_))>) {
                f(*server_);
                promise.set_value();
            } else {
                promise.set_value(f(*server_));
            }
        });
        return future.get();
    }
    /// Waits (at most 30 s) until a condition over the server holds.
    [[nodiscard]] bool until(const std::function<bool(Server&)>& condition);

    /// Certificate files of a source, issued at first use.
    [[nodiscard]] tls::Files files_of(const std::string& source);
    [[nodiscard]] tls::TlsContext context_of(const std::string& source);
    [[nodiscard]] Client connect(const std::string& source);
    [[nodiscard]] proto::Hello hello_of(const std::string& source) const;

    std::filesystem::path dir;
    MemoryLog log;
    ServerOptions options;
    std::uint16_t port = 0;

private:
    SystemClock clock_;
    std::unique_ptr<loop::Loop> loop_;
    std::unique_ptr<Server> server_;
    std::thread thread_;
};

/// Disk 0 of every test source.
inline constexpr std::uint64_t disk_sectors = 16384;

/// A batch that initially syncs disk 0 with `fill` everywhere and asks for nothing else: EPOCH_BEGIN, data, EPOCH_END.
[[nodiscard]] Batch initial_sync(std::uint64_t number, std::uint64_t seq0, std::byte fill);

}  // namespace blkferry::server::test
