// Sleeps again and again by a 32-bit system call: nanosleep is number 162 (arch/x86/entry/syscalls/syscall_32.tbl).
void _start(void)
{
	struct { int seconds, nanoseconds; } pause = { 0, 10000000 };
	for (;;) {
		int number = 162;
		__asm__ volatile("int $0x80" : "+a"(number) : "b"(&pause), "c"(0) : "memory");
	}
}
