// A build that pins an ISA may use its instructions anywhere. This check runs
// before main and ends the program with a message where the processor lacks
// them, instead of leaving the user with SIGILL.
#if defined(__AVX2__)

#include <cpuid.h>
#include <unistd.h>

#include <cstdint>

namespace nibble {
namespace {

struct Need {
  uint32_t leaf;
  uint32_t subleaf;
  char reg;
  int bit;
};

// The features that the compiler was told it may use.
constexpr Need kNeeds[] = {
    {1, 0, 'c', 12},  // FMA
    {1, 0, 'c', 29},  // F16C
    {7, 0, 'b', 5},   // AVX2
#if defined(__AVXVNNI__)
    {7, 1, 'a', 4},  // AVX-VNNI
#endif
#if defined(__AVX512F__)
    {7, 0, 'b', 16},  // AVX512F
    {7, 0, 'b', 17},  // AVX512DQ
    {7, 0, 'b', 30},  // AVX512BW
    {7, 0, 'b', 31},  // AVX512VL
#endif
#if defined(__AVX512VNNI__)
    {7, 0, 'c', 11},  // AVX512_VNNI
    {7, 0, 'c', 6},   // AVX512_VBMI2
#endif
#if defined(__AVX512FP16__)
    {7, 0, 'd', 23},  // AVX512_FP16
#endif
#if defined(__AMX_TILE__)
    {7, 0, 'd', 24},  // AMX-TILE
#endif
};

bool Has(const Need& need) {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(need.leaf, need.subleaf, &eax, &ebx, &ecx, &edx)) {
    return false;
  }
  const uint32_t word = need.reg == 'a'   ? eax
                        : need.reg == 'b' ? ebx
                        : need.reg == 'c' ? ecx
                                          : edx;
  return ((word >> need.bit) & 1) != 0;
}

// 101 is the first priority open to programs: before every static object.
__attribute__((constructor(101))) void CheckPinnedIsa() {
  for (const Need& need : kNeeds) {
    if (Has(need)) continue;
    static const char kMessage[] =
        "error: this program was built for an instruction set that the "
        "processor lacks; build it without --config=avx2, avx_vnni, avx512, "
        "avx512_vnni or amx\n";
    const ssize_t ignored = write(2, kMessage, sizeof(kMessage) - 1);
    (void)ignored;
    _exit(1);
  }
}

}  // namespace
}  // namespace nibble

#endif  // __AVX2__
