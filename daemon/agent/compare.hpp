// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "agent/shipper.hpp"
#include "agent/workers.hpp"
#include "extent/extent.hpp"
#include "proto/hashing.hpp"

namespace blkferry::agent {

/// Asks the server which blocks differ from its staging. One thread (the loop's).
class HashExchange {
public:
    using Done = std::move_only_function<void(std::vector<bool> differs)>;

    HashExchange(Shipper& shipper, WorkerPool& pool) : shipper_(shipper), pool_(pool) {}

    void ask(std::uint16_t slot, std::uint32_t block_bytes, std::uint64_t sector, std::vector<Sha256> hashes, Done done);
    /// Errc::conflict: an answer to a question that was not asked.
    [[nodiscard]] Result<void> on_reply(proto::HashReply reply);
    /// The session ended: no question is answered any more.
    void reset();
    [[nodiscard]] std::size_t outstanding() const noexcept { return asked_.size(); }
    [[nodiscard]] WorkerPool& pool() noexcept { return pool_; }
    [[nodiscard]] std::weak_ptr<bool> alive() const noexcept { return alive_; }

private:
    struct Asked {
        std::size_t count;
        Done done;
    };
    Shipper& shipper_;
    WorkerPool& pool_;
    std::map<std::uint64_t, Asked> asked_;
    std::uint64_t next_ = 1;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// Finds out which sectors of one aligned block of at most hash_block_bytes_max differ from the replica: by one hash, then
/// by 64 KiB, then by 4 KiB. `done` gets the differing runs, ascending, at 4 KiB (the last may be shorter). It is
/// dropped without a call if the session ends.
///
///     hash 1 MiB -> ask -> equal: done({})
///                       -> differs: hash 64 KiB -> ask -> hash 4 KiB of the differing -> ask -> done(runs)
void compare_block(HashExchange& exchange, std::uint16_t slot, Extent extent, std::shared_ptr<const std::byte> data,
                   std::move_only_function<void(std::vector<Extent>)> done);

}  // namespace blkferry::agent
