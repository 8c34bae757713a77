// SPDX-License-Identifier: Apache-2.0
#include "agent/read_pool.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <map>

#include <fmt/format.h>

namespace blkferry::agent {

namespace {
constexpr std::size_t alignment = 4096;
struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
};
using Memory = std::unique_ptr<std::byte, Free>;

constexpr std::size_t whole(std::size_t bytes) noexcept {
    return (bytes + alignment - 1) / alignment * alignment;
}
}  // namespace

struct ReadPool::State {
    std::mutex mutex;  // all members
    std::size_t budget = 0;
    std::size_t used = 0;
    std::multimap<std::size_t, Memory> spare;
    std::size_t spare_bytes = 0;
};

ReadPool::ReadPool(std::size_t budget_bytes) : state_(std::make_shared<State>()) {
    state_->budget = budget_bytes;
}

std::shared_ptr<std::byte> ReadPool::take(std::size_t bytes) {
    const std::size_t size = whole(bytes);
    Memory memory;
    {
        const std::lock_guard lock(state_->mutex);
        if (state_->used != 0 && state_->used + size > state_->budget)
            return nullptr;
        state_->used += size;
        if (const auto it = state_->spare.find(size); it != state_->spare.end()) {
            memory = std::move(it->second);
            state_->spare.erase(it);
            state_->spare_bytes -= size;
        }
    }
    if (!memory)
        memory.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, size)));
    BLKFERRY_ASSERT(memory != nullptr);
    return {memory.release(), [state = state_, size](std::byte* p) {
                Memory back(p);
                const std::lock_guard lock(state->mutex);
                state->used -= size;
                if (state->spare_bytes + state->used + size <= state->budget) {
                    state->spare_bytes += size;
                    state->spare.emplace(size, std::move(back));
                }
            }};
}

bool ReadPool::full(std::size_t bytes) const {
    const std::lock_guard lock(state_->mutex);
    return state_->used != 0 && state_->used + whole(bytes) > state_->budget;
}

void ReadPool::trim() {
    const std::lock_guard lock(state_->mutex);
    state_->spare.clear();
    state_->spare_bytes = 0;
}

Result<DiskReader> DiskReader::open(loop::Loop& loop, const std::string& path) {
    auto fd = open_file(path, O_RDONLY | O_DIRECT);
    if (!fd && fd.error().sys_errno == EINVAL)
        fd = open_file(path, O_RDONLY);
    if (!fd)
        return std::unexpected(std::move(fd).error());
    return DiskReader(loop, std::move(*fd), path);
}

struct DiskReader::Request {
    loop::Loop* loop;
    std::shared_ptr<Fd> fd;
    std::string path;
    std::weak_ptr<bool> alive;
    Extent extent;
    std::shared_ptr<std::byte> buffer;
    std::size_t done_bytes = 0;
    Done done;
};

void DiskReader::read(Extent extent, std::shared_ptr<std::byte> buffer, Done done) {
    step(std::make_shared<Request>(loop_, fd_, path_, alive_, extent, std::move(buffer), 0, std::move(done)));
}

void DiskReader::step(const std::shared_ptr<Request>& r) {
    const std::size_t want = static_cast<std::size_t>(r->extent.count * sector_bytes) - r->done_bytes;
    const std::uint64_t offset = r->extent.sector * sector_bytes + r->done_bytes;
    auto io = r->loop->read(r->fd->get(), {r->buffer.get() + r->done_bytes, want}, offset, [r, want, offset](std::int32_t n) {
        if (r->alive.expired())
            return;
        if (n == -EINTR || n == -EAGAIN || (n > 0 && static_cast<std::size_t>(n) < want && n % 512 == 0)) {
            r->done_bytes += n > 0 ? static_cast<std::size_t>(n) : 0;
            step(r);
            return;
        }
        if (n < 0)
            r->done(fail_errno(-n, fmt::format("cannot read {} at byte {}", r->path, offset)));
        else if (static_cast<std::size_t>(n) != want)
            r->done(fail(Errc::io, fmt::format("{} ends at byte {}, {} more expected", r->path,
                                               offset + static_cast<std::uint64_t>(n), want - static_cast<std::size_t>(n))));
        else
            r->done({});
    });
    io.detach();
}

}  // namespace blkferry::agent
