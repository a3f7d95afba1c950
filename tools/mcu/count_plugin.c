/* A QEMU plugin that counts executed instructions exactly.
 *
 * Two instructions that do nothing mark a region in the firmware (see firmware/semihosting.h):
 *   Arm Thumb  mov r9, r9   begins, mov r10, r10  ends
 *   RISC-V     slti x0,x0,1 begins, slti x0,x0,2  ends
 *   AArch64    mov x25, x25 begins, mov x26, x26  ends
 *
 * Arguments: out=FILE, one line a region "region N COUNT", then "total COUNT";
 *            blocks=1 adds "block ADDRESS COUNT" lines: instructions executed inside regions by
 *            the translation block that begins at that address, for an account by function;
 *            code=1 adds "code ADDRESS TIMES HEX" lines after each region's own: how often a block
 *            ran inside it, and its instructions as they lie in memory, for a model of cycles.
 *
 * No header of QEMU's is used: the few functions of the plugin interface, version 1, that are
 * called here are declared below (QEMU, docs/devel/tcg-plugins).
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_arch;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    int smp_vcpus, max_vcpus;
} plugin_info;

enum { INLINE_ADD_U64 = 0, CB_NO_REGS = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id,
                                                  void (*)(plugin_id, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *,
                                                   void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *,
                                                 void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *,
                                                       uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

typedef enum { ARCH_ARM, ARCH_AARCH64, ARCH_RISCV } arch_kind;
typedef enum { MARK_NONE, MARK_BEGIN, MARK_END } mark_kind;

#define SLOT_BITS 18
#define BLOCK_SLOTS (1u << SLOT_BITS)
typedef struct {
    uint64_t address, instructions, executed;
    uint64_t here; /* times in this region */
    uint8_t *code; /* its bytes, where they are asked for */
    size_t code_bytes;
} block_slot;

static arch_kind arch;
static FILE *out;
static uint64_t executed, region_start, region_number;
static bool in_region, want_blocks, want_code;
static block_slot blocks[BLOCK_SLOTS];

static void on_begin(unsigned cpu, void *user)
{
    (void)cpu;
    (void)user;
    in_region = true;
    region_start = executed;
}

static void write_code(block_slot *slot)
{
    fprintf(out, "code %llx %llu ", (unsigned long long)slot->address,
            (unsigned long long)slot->here);
    for (size_t b = 0; b < slot->code_bytes; b++)
        fprintf(out, "%02x", slot->code[b]);
    fprintf(out, "\n");
    slot->here = 0;
}

static void on_end(unsigned cpu, void *user)
{
    (void)cpu;
    (void)user;
    in_region = false;
    /* the mark itself has been counted: take it off */
    fprintf(out, "region %llu %llu\n", (unsigned long long)region_number++,
            (unsigned long long)(executed - region_start - 1));
    for (size_t i = 0; want_code && i < BLOCK_SLOTS; i++)
        if (blocks[i].here)
            write_code(&blocks[i]);
    fflush(out);
}

static void on_block(unsigned cpu, void *user)
{
    (void)cpu;
    block_slot *slot = user;
    if (in_region) {
        slot->executed += slot->instructions;
        slot->here++;
    }
}

/* Of an instruction, from how it begins. At a page's end QEMU reports a Thumb instruction with two
 * bytes of the next one, which it looked at. */
static size_t size_of(const uint8_t *bytes)
{
    if (arch == ARCH_ARM) { /* Thumb alone: the marks are of it */
        uint16_t half;
        memcpy(&half, bytes, 2);
        return (half & 0xE000) == 0xE000 && (half & 0x1800) ? 4 : 2;
    }
    return arch == ARCH_RISCV && (bytes[0] & 3) != 3 ? 2 : 4;
}

static mark_kind mark_of(const uint8_t *bytes)
{
    if (arch == ARCH_ARM) {
        uint16_t half;
        memcpy(&half, bytes, 2);
        return half == 0x46C9 ? MARK_BEGIN : half == 0x46D2 ? MARK_END : MARK_NONE;
    }
    if (size_of(bytes) == 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        if (arch == ARCH_AARCH64)
            return word == 0xAA1903F9 ? MARK_BEGIN : word == 0xAA1A03FA ? MARK_END : MARK_NONE;
        return word == 0x00102013 ? MARK_BEGIN : word == 0x00202013 ? MARK_END : MARK_NONE;
    }
    return MARK_NONE;
}

/* The slot of a block; a block that is translated again with another length gets its own. */
static block_slot *slot_of(uint64_t address, uint64_t instructions)
{
    uint64_t i = (address * 0x9E3779B97F4A7C15u) >> (64 - SLOT_BITS);
    for (uint64_t tries = 0; tries < BLOCK_SLOTS; tries++, i++) {
        block_slot *slot = &blocks[i % BLOCK_SLOTS];
        if (slot->instructions == 0) {
            slot->address = address;
            slot->instructions = instructions;
            return slot;
        }
        if (slot->address == address && slot->instructions == instructions)
            return slot;
    }
    fprintf(stderr, "count_plugin: more than %u blocks\n", BLOCK_SLOTS);
    exit(1);
}

static void keep_code(block_slot *slot, const struct qemu_plugin_tb *tb, size_t count)
{
    if (!want_code || slot->code)
        return;
    slot->code = malloc(4 * count);
    if (!slot->code) {
        fprintf(stderr, "count_plugin: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *bytes = qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i));
        const size_t size = size_of(bytes); /* at most 4, as there is room for */
        memcpy(slot->code + slot->code_bytes, bytes, size);
        slot->code_bytes += size;
    }
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    if (want_blocks || want_code) {
        block_slot *slot = slot_of(qemu_plugin_tb_vaddr(tb), count);
        keep_code(slot, tb, count);
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, CB_NO_REGS, slot);
    }
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD_U64, &executed, 1);
        mark_kind mark = mark_of(qemu_plugin_insn_data(insn));
        if (mark != MARK_NONE)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, mark == MARK_BEGIN ? on_begin : on_end,
                                                   CB_NO_REGS, NULL);
    }
}

static void on_quit(plugin_id id, void *user)
{
    (void)id;
    (void)user;
    for (size_t i = 0; i < BLOCK_SLOTS; i++) {
        const block_slot *slot = &blocks[i];
        if (want_blocks && slot->executed)
            fprintf(out, "block %llx %llu\n", (unsigned long long)slot->address,
                    (unsigned long long)slot->executed);
    }
    fprintf(out, "total %llu\n", (unsigned long long)executed);
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id,
                                                               const plugin_info *info, int argc,
                                                               char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4))
            out = fopen(argv[i] + 4, "w");
        else if (!strncmp(argv[i], "blocks=", 7))
            want_blocks = argv[i][7] == '1';
        else if (!strncmp(argv[i], "code=", 5))
            want_code = argv[i][5] == '1';
        else {
            fprintf(stderr, "count_plugin: unknown argument %s\n", argv[i]);
            return 1;
        }
    }
    if (!out) {
        fprintf(stderr, "count_plugin: out=FILE is missing or cannot be written\n");
        return 1;
    }
    if (!strcmp(info->target_arch, "arm"))
        arch = ARCH_ARM;
    else if (!strcmp(info->target_arch, "aarch64"))
        arch = ARCH_AARCH64;
    else if (!strncmp(info->target_arch, "riscv", 5))
        arch = ARCH_RISCV;
    else {
        fprintf(stderr, "count_plugin: no marks known for %s\n", info->target_arch);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_quit, NULL);
    return 0;
}
