// Functions of loaded libraries, found in their own tables.
//
// dlsym is one of the functions we stand in for, so it cannot be asked; and where dlsym lives
// (libdl or libc) depends on glibc's age. Reading the tables needs neither.
#include <elf.h>
#include <link.h>
#include <string.h>

#include "guest.h"

struct tables {
    const ElfW(Sym) *symbols;
    const char *strings;
    const uint32_t *gnu, *old;
};

struct search {
    const char *library, *name;
    const void *address;
    bool beyond;  // the object that holds `address` was seen
    void *found;
};

static bool is_named(const char *path, const char *library) {
    const char *last = path ? strrchr(path, '/') : NULL;
    const char *name = last ? last + 1 : path;
    return name && !strncmp(name, library, strlen(library));
}

// The loader writes addresses into the table; where it left offsets, they are below the base.
static const void *place(const struct dl_phdr_info *one, ElfW(Addr) value) {
    return (const void *)(value < one->dlpi_addr ? one->dlpi_addr + value : value);
}

static struct tables tables_of(const struct dl_phdr_info *one) {
    struct tables all = {0};
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < one->dlpi_phnum; i++)
        if (one->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const void *)(one->dlpi_addr + one->dlpi_phdr[i].p_vaddr);
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *at = place(one, entry->d_un.d_ptr);
        if (entry->d_tag == DT_SYMTAB) all.symbols = at;
        if (entry->d_tag == DT_STRTAB) all.strings = at;
        if (entry->d_tag == DT_GNU_HASH) all.gnu = at;
        if (entry->d_tag == DT_HASH) all.old = at;
    }
    return all;
}

static bool fits(const struct tables *all, uint32_t index, const char *name) {
    const ElfW(Sym) *one = &all->symbols[index];
    return one->st_shndx != SHN_UNDEF && !strcmp(all->strings + one->st_name, name);
}

static uint32_t in_gnu(const struct tables *all, const char *name) {
    uint32_t hash = 5381;
    for (const char *c = name; *c; c++) hash = hash * 33 + (uint8_t)*c;
    uint32_t buckets = all->gnu[0], first = all->gnu[1], words = all->gnu[2];
    const uint32_t *bucket = all->gnu + 4 + words * (sizeof(ElfW(Addr)) / 4);
    const uint32_t *chain = bucket + buckets;
    uint32_t index = buckets ? bucket[hash % buckets] : 0;
    if (index < first) return 0;
    for (;; index++) {
        uint32_t other = chain[index - first];
        if ((other | 1) == (hash | 1) && fits(all, index, name)) return index;
        if (other & 1) return 0;
    }
}

static uint32_t in_old(const struct tables *all, const char *name) {
    for (uint32_t index = 1; index < all->old[1]; index++)
        if (fits(all, index, name)) return index;
    return 0;
}

static int look(struct dl_phdr_info *one, size_t size, void *argument) {
    struct search *wanted = argument;
    (void)size;
    if (!is_named(one->dlpi_name, wanted->library)) return 0;
    struct tables all = tables_of(one);
    if (!all.symbols || !all.strings) return 0;
    uint32_t index = all.gnu ? in_gnu(&all, wanted->name)
                   : all.old ? in_old(&all, wanted->name) : 0;
    if (!index) return 0;
    wanted->found = (void *)(one->dlpi_addr + all.symbols[index].st_value);
    return 1;
}

void *object_symbol(const char *library, const char *name) {
    struct search wanted = {.library = library, .name = name};
    dl_iterate_phdr(look, &wanted);
    return wanted.found;
}

static bool has(const struct dl_phdr_info *one, const void *address) {
    uintptr_t at = (uintptr_t)address;
    for (int i = 0; i < one->dlpi_phnum; i++) {
        uintptr_t from = one->dlpi_addr + one->dlpi_phdr[i].p_vaddr;
        if (one->dlpi_phdr[i].p_type == PT_LOAD && at >= from &&
            at - from < one->dlpi_phdr[i].p_memsz)
            return true;
    }
    return false;
}

static int look_beyond(struct dl_phdr_info *one, size_t size, void *argument) {
    struct search *wanted = argument;
    if (wanted->beyond) return look(one, size, wanted);
    wanted->beyond = has(one, wanted->address);
    return 0;
}

// As dlsym(RTLD_NEXT) finds it from us.
void *object_symbol_beyond(const void *ours, const char *name) {
    struct search wanted = {.library = "", .name = name, .address = ours};
    dl_iterate_phdr(look_beyond, &wanted);
    return wanted.found;
}

static int holds(struct dl_phdr_info *one, size_t size, void *argument) {
    struct search *wanted = argument;
    (void)size;
    return is_named(one->dlpi_name, wanted->library) && has(one, wanted->address);
}

static int find_base(struct dl_phdr_info *one, size_t size, void *argument) {
    struct search *wanted = argument;
    (void)size;
    if (!has(one, wanted->address)) return 0;
    wanted->found = (void *)one->dlpi_addr;
    return 1;
}

void *object_base(const void *address) {
    struct search wanted = {.address = address};
    dl_iterate_phdr(find_base, &wanted);
    return wanted.found;
}

bool object_holds(const char *library, const void *address) {
    struct search wanted = {.library = library, .address = address};
    return dl_iterate_phdr(holds, &wanted) == 1;
}
