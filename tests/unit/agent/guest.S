/* A whole guest in one boot sector, for tests on real QEMUs: what it holds, writes and gives back is known to the page.
 *
 * Fills `filled` pages from 16 MiB on, page i with i + 1 (counted from the end) in its first word. Gives the first
 * `ballooned` of them back through a virtio balloon, if there is one. Then writes `written` pages behind the ballooned
 * ones over and over, one after the other, `per_tick` at each tick of the BIOS (18.2065 a second). tests/unit/agent/
 * qemus.py has it assembled and sets the four numbers:
 *   as --32 guest.S -o guest.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary guest.o -o guest.bin */
    .set BASE, 0x1000000
    .set QUEUE, 0x100000        /* the balloon's queue of 128 entries, in its old layout */
    .set NUMBERS, 0x200000      /* the page numbers for it */
    .set TICKS, 0x46c           /* counted by the BIOS */

    .code16
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7c00, %sp
    inb $0x92, %al              /* the 21st address line */
    orb $2, %al
    outb %al, $0x92
    lgdtl table_pointer
    movl %cr0, %eax             /* one visit to protected mode: FS reaches all of memory */
    orb $1, %al
    movl %eax, %cr0
    movw $8, %bx
    movw %bx, %fs
    andb $0xfe, %al
    movl %eax, %cr0
    xorw %bx, %bx
    movw %bx, %fs
    sti

    movl $BASE, %edi
    movl filled, %ecx
    testl %ecx, %ecx
    jz balloon
fill:
    movl %ecx, %fs:(%edi)
    addl $4096, %edi
    decl %ecx
    jnz fill

balloon:
    movl ballooned, %ecx
    testl %ecx, %ecx
    jz write
    movl $NUMBERS, %edi
    movl $(BASE / 4096), %eax
number:
    movl %eax, %fs:(%edi)
    incl %eax
    addl $4, %edi
    decl %ecx
    jnz number
    movw $0xb102, %ax           /* PCI BIOS: find 1af4:1002 */
    movw $0x1002, %cx
    movw $0x1af4, %dx
    xorw %si, %si
    int $0x1a
    jc write
    movw $0xb10c, %ax           /* allow its ports and its access to memory */
    movw $4, %di
    movw $7, %cx
    int $0x1a
    movw $0xb10a, %ax           /* where its ports are */
    movw $0x10, %di
    int $0x1a
    andw $0xfffc, %cx
    movw %cx, %bp
    leaw 18(%bp), %dx           /* status: driver */
    movb $3, %al
    outb %al, %dx
    leaw 14(%bp), %dx           /* the queue to inflate by */
    xorw %ax, %ax
    outw %ax, %dx
    leaw 8(%bp), %dx
    movl $(QUEUE / 4096), %eax
    outl %eax, %dx
    leaw 18(%bp), %dx           /* status: driver is ready */
    movb $7, %al
    outb %al, %dx
    movl $QUEUE, %edi
    movl $NUMBERS, %fs:(%edi)
    movl ballooned, %eax
    shll $2, %eax
    movl %eax, %fs:8(%edi)
    movl $0x10000, %fs:2048(%edi)   /* one buffer, the first */
    leaw 16(%bp), %dx
    xorw %ax, %ax
    outw %ax, %dx

write:
    movl ballooned, %ebx
    shll $12, %ebx
    addl $BASE, %ebx
again:
    movl %ebx, %edi
    xorl %ecx, %ecx
tick:
    movl TICKS, %eax
wait:
    hlt
    cmpl TICKS, %eax
    je wait
    movl per_tick, %edx
page:
    testl %edx, %edx
    jz tick
    incl %fs:8(%edi)
    addl $4096, %edi
    decl %edx
    incl %ecx
    cmpl written, %ecx
    jb page
    movl %ebx, %edi
    xorl %ecx, %ecx
    jmp page

    .balign 8
table:
    .quad 0
    .quad 0x00cf92000000ffff    /* data, from 0, 4 GiB */
table_pointer:
    .word 15
    .long table

    .org 494
filled:
    .long 0
ballooned:
    .long 0
written:
    .long 1
per_tick:
    .long 0
    .word 0xaa55
