// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ring's arithmetic under a hostile consumer: the input is a history of appends and of tails written to the shared
 * page. Whatever they are, no payload may lie on one that is in use, and what is given back was final.
 */
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/ring.h"

namespace {

constexpr u32 descs = 64;
constexpr u64 bytes = 64 * 1024;

struct Item {
    u64 pos;
    u32 len;
    bool final;
};

void require(bool condition) {
    if (!condition) {
        abort();
    }
}

/* Two payloads share no byte, as positions and reduced to the ring. */
void check_disjoint(const bf_ring& ring, const std::vector<Item>& items) {
    std::vector<bool> used(bytes / BF_RING_SECTOR);
    for (u64 index = ring.tail; index != ring.head; ++index) {
        const Item& item = items[index % descs];
        for (u64 at = item.pos; at < item.pos + item.len; at += BF_RING_SECTOR) {
            const u64 slot = at % bytes / BF_RING_SECTOR;
            require(!used[slot]);
            used[slot] = true;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    bf_ring ring;
    std::vector<Item> items(descs);
    bf_ring_init(&ring, descs, bytes);
    for (; size >= 10; data += 10, size -= 10) {
        u64 number = 0;
        memcpy(&number, data + 2, sizeof(number));
        const u32 len = static_cast<u32>((number >> 32) % (bytes / 4 / BF_RING_SECTOR + 1)) * BF_RING_SECTOR;
        u64 pos = 0;
        switch (data[0] % 4) {
        case 0:
        case 1:
            if (bf_ring_room(&ring) > 1 && bf_ring_place(&ring, number, len, &pos)) {
                require(pos % bytes + len <= bytes);
                if (len != 0) {
                    bf_ring_take(&ring, pos, len);
                }
                items[ring.head % descs] = Item{len != 0 ? pos : 0, len, (data[1] & 1) != 0};
                ring.head++;
                check_disjoint(ring, items);
            }
            break;
        case 2:
            items[number % descs].final = true;
            break;
        default: {
            const u64 tail = (data[1] & 1) != 0 ? number : ring.tail + number % (descs + 2);
            if (!bf_ring_tail_ok(&ring, tail)) {
                require(tail < ring.tail || tail > ring.head);
                break;
            }
            while (ring.tail != tail && items[ring.tail % descs].final) {
                bf_ring_pop(&ring, items[ring.tail % descs].pos, items[ring.tail % descs].len);
            }
        }
        }
        require(ring.tail <= ring.head && ring.head - ring.tail <= descs);
        require(ring.data_tail <= ring.data_head && ring.data_head - ring.data_tail <= bytes);
    }
    return 0;
}
