// SPDX-License-Identifier: Apache-2.0
#include "agent/compare.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/hash.hpp"
#include "proto/frame.hpp"

namespace blkferry::agent {

void HashExchange::ask(std::uint16_t slot, std::uint32_t block_bytes, std::uint64_t sector, std::vector<Sha256> hashes,
                       Done done) {
    proto::HashAsk m{next_++, slot, block_bytes, sector, std::move(hashes)};
    asked_.emplace(m.request, Asked{m.hashes.size(), std::move(done)});
    std::vector<std::byte> body;
    encode(m, body);
    std::vector<std::byte> frame;
    encode_frame(proto::FrameType::hash_ask, 0, 0, body, nullptr, frame);
    shipper_.send_control(std::move(frame));
}

Result<void> HashExchange::on_reply(proto::HashReply reply) {
    const auto it = asked_.find(reply.request);
    if (it == asked_.end() || it->second.count != reply.differs.size())
        return fail(Errc::conflict, fmt::format("the server answered hash question {}, which was not asked so", reply.request));
    Done done = std::move(it->second.done);
    asked_.erase(it);
    done(std::move(reply.differs));
    return {};
}

void HashExchange::reset() {
    asked_.clear();
    alive_ = std::make_shared<bool>(true);
}

namespace {

constexpr std::array<std::uint32_t, 3> levels{proto::hash_block_bytes_max, 64U << 10, proto::hash_block_bytes_min};

struct Compare {
    HashExchange& exchange;
    std::weak_ptr<bool> alive;
    std::uint16_t slot;
    Extent extent;
    std::shared_ptr<const std::byte> data;
    std::move_only_function<void(std::vector<Extent>)> done;
    std::size_t level = 0;
    std::vector<Extent> suspects;  ///< runs known to differ at the level before
    std::vector<Extent> differs;   ///< found at this level
    std::size_t waiting = 0;

    [[nodiscard]] std::vector<Sha256> hashes_of(Extent run) const {
        std::vector<Sha256> out;
        const std::uint64_t step = levels[level] / sector_bytes;
        for (std::uint64_t s = run.sector; s < run.end(); s += step) {
            const std::uint64_t n = std::min(step, run.end() - s);
            out.push_back(sha256({data.get() + (s - extent.sector) * sector_bytes, n * sector_bytes}));
        }
        return out;
    }
};

void append(std::vector<Extent>& runs, Extent e) {
    if (!runs.empty() && runs.back().end() == e.sector)
        runs.back().count += e.count;
    else
        runs.push_back(e);
}

void next_level(const std::shared_ptr<Compare>& c);

void answered(const std::shared_ptr<Compare>& c, Extent run, const std::vector<bool>& differs) {
    const std::uint64_t step = levels[c->level] / sector_bytes;
    for (std::size_t i = 0; i < differs.size(); ++i)
        if (differs[i]) {
            const std::uint64_t s = run.sector + i * step;
            append(c->differs, {s, std::min(step, run.end() - s)});
        }
    if (--c->waiting > 0)
        return;
    std::uint64_t sectors = 0;
    for (const Extent& e : c->differs)
        sectors += e.count;
    ++c->level;
    if (c->differs.empty() || c->level == levels.size() || (c->level > 1 && sectors == c->extent.count)) {
        c->done(std::move(c->differs));
        return;
    }
    c->suspects = std::exchange(c->differs, {});
    next_level(c);
}

void next_level(const std::shared_ptr<Compare>& c) {
    auto hashes = std::make_shared<std::vector<std::vector<Sha256>>>();
    c->exchange.pool().submit(
        [c, hashes](WorkerContext&) {
            for (const Extent& run : c->suspects)
                hashes->push_back(c->hashes_of(run));
        },
        [c, hashes] {
            if (c->alive.expired())
                return;
            c->waiting = c->suspects.size();
            for (std::size_t i = 0; i < hashes->size(); ++i) {
                const Extent run = c->suspects[i];
                c->exchange.ask(c->slot, levels[c->level], run.sector, std::move((*hashes)[i]),
                                [c, run](std::vector<bool> differs) { answered(c, run, differs); });
            }
        });
}

}  // namespace

void compare_block(HashExchange& exchange, std::uint16_t slot, Extent extent, std::shared_ptr<const std::byte> data,
                   std::move_only_function<void(std::vector<Extent>)> done) {
    BLKFERRY_ASSERT(extent.count > 0 && extent.count <= proto::hash_block_bytes_max / sector_bytes &&
                    extent.sector % (proto::hash_block_bytes_max / sector_bytes) == 0);
    auto c = std::make_shared<Compare>(exchange, exchange.alive(), slot, extent, std::move(data), std::move(done));
    c->suspects = {extent};
    next_level(c);
}

}  // namespace blkferry::agent
