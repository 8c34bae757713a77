// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <blkferry.h>

#include "capture/tracker.hpp"

namespace blkferry::capture {

/// The ring of a disk whose writes are not captured but only marked: it speaks the module's contract and carries nothing but markers, in
/// memory of this process. The writer's side; Ring is the reader's. One thread.
class MarkerRing {
public:
    struct Geometry {
        std::uint32_t disk = 0;
        std::uint64_t dev = 0;           ///< device_number()
        std::uint64_t sectors = 0;
        std::uint32_t block_shift = 12;  ///< log2 of the bytes per bit
        std::uint32_t logical_block = 512;
        Uuid attach_id;
    };
    [[nodiscard]] static Result<MarkerRing> make(const Geometry& geometry);

    /// The page that the reader sees; stores to it go through publish().
    [[nodiscard]] blkferry_ctl& ctl() const noexcept;
    template <class T>
    static void publish(T& word, std::type_identity_t<T> value) noexcept;
    /// The snapshot map.
    [[nodiscard]] std::span<std::uint64_t> snap() const noexcept;
    [[nodiscard]] std::uint64_t memory() const noexcept;

    /// Whether a marker has room. Takes over the reader's tail first, if that is possible; a tail that is not gives no room.
    [[nodiscard]] bool room() noexcept;
    /// Appends a marker; there must be room. Wakes the reader.
    void append(blkferry_op op, std::uint64_t seq) noexcept;
    void wake() noexcept;
    /// Everything was given back.
    [[nodiscard]] bool empty() noexcept;
    /// Mappings of the same memory for a reader.
    [[nodiscard]] Result<RingMemory> open() const;

private:
    struct Region {
        Fd fd;
        Mapping map;
    };
    MarkerRing() = default;

    std::array<Region, 5> regions_;  ///< enum blkferry_region
    Fd wake_;
    std::uint64_t head_ = 0;
    std::uint64_t tail_ = 0;
};

template <class T>
void MarkerRing::publish(T& word, std::type_identity_t<T> value) noexcept {
    __atomic_store_n(&word, value, __ATOMIC_SEQ_CST);
}

}  // namespace blkferry::capture
