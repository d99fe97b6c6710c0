/* Memory for packed weights, on pages of 2 MB where the system has them; and the pages that they were read from.
 *
 * One short text reads all weights once. In pages of 4 KB that is more addresses than a processor holds translations
 * of, and those of the interpreter and the server around it are gone after each text. Linux gives large pages to memory
 * that asks for them (madvise), in whole aligned pages only: so weights lie side by side in chunks of many.
 */
#ifndef FASTEMBED_RT_PAGES_H
#define FASTEMBED_RT_PAGES_H

#include <stddef.h>

/* Zeros at a multiple of 64; NULL where there is no memory. One thread at a time is in either function. */
void *allocate_pages(size_t bytes);

/* Gives back what allocate_pages gave for as many bytes; nothing for NULL. */
void free_pages(void *memory, size_t bytes);

/* Pages of a file that these bytes lie on leave the resident set, where nothing was written to them: they stay in the
 * system's cache, and what is read again comes back. Other memory is left alone. Nobody may unmap the bytes meanwhile:
 * what then comes to lie there would be lost. */
void release_file_pages(const void *memory, size_t bytes);

#endif
