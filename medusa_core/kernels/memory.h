// Memory that is read at every step, on large pages: with 4 KiB ones, looking up addresses takes a fifth of the bandwidth.
#pragma once
#include <sys/mman.h>

#include <cstdint>

namespace medusa {

// Ask for large pages under `size` bytes that nothing has been written to yet. Where there are none, nothing is lost.
static void use_large_pages(void* memory, size_t size) {
    const uintptr_t page = 4096, begin = ((uintptr_t)memory + page - 1) / page * page, end = (uintptr_t)memory + size;
    if (end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
}

}  // namespace medusa
