#include "textflag.h"

// A function per kind of instruction, which comes first in it. Some are written as bytes, lest the assembler choose
// another encoding.

// The stack check that most Go functions begin with.
TEXT ·cmp(SB), NOSPLIT, $0-0
	CMPQ SP, 16(R14)
	RET

TEXT ·mov(SB), NOSPLIT, $0-0
	MOVQ AX, CX
	RET

// How functions without a stack check begin.
TEXT ·sub(SB), NOSPLIT, $0-0
	BYTE $0x48; BYTE $0x83; BYTE $0xec; BYTE $0x08 // sub $8, %rsp
	BYTE $0x48; BYTE $0x83; BYTE $0xc4; BYTE $0x08 // add $8, %rsp
	RET

// How functions with a large frame begin.
TEXT ·lea(SB), NOSPLIT, $0-0
	LEAQ -128(SP), R12
	RET

TEXT ·push(SB), NOSPLIT, $0-0
	BYTE $0x55 // push %rbp
	BYTE $0x5d // pop %rbp
	RET

TEXT ·jcc(SB), NOSPLIT, $0-0
	BYTE $0x76; BYTE $0x01 // jbe over the next byte
	BYTE $0x90
	RET

TEXT ·jmp(SB), NOSPLIT, $0-0
	BYTE $0xeb; BYTE $0x01 // jmp over the next byte
	BYTE $0x90
	RET

TEXT ·call(SB), NOSPLIT, $0-0
	BYTE $0xe8; BYTE $0x01; BYTE $0x00; BYTE $0x00; BYTE $0x00 // call over the next byte
	RET
	RET // called, then behind the call the RET above

TEXT ·ret(SB), NOSPLIT, $0-0
	RET

// Where a USDT probe sits.
TEXT ·nop(SB), NOSPLIT, $0-0
	BYTE $0x0f; BYTE $0x1f; BYTE $0x44; BYTE $0x00; BYTE $0x00
	RET
