"""Makes a file of C++ from the ```cpp blocks of a page: one function a block.

usage: extract.py PAGE PRELUDE OUTPUT

The prelude declares what the blocks take for granted. A block's #include lines come first; a block
that begins with "// NAME.cu" is for nvcc and left out.
"""
import re
import sys

page, prelude, output = sys.argv[1:]
with open(page, encoding="utf-8") as file:
    blocks = re.findall(r"^```cpp\n(.*?)^```$", file.read(), re.DOTALL | re.MULTILINE)
blocks = [block for block in blocks if not re.match(r"// \w+\.cu\n", block)]
if not blocks:
    sys.exit(f"{page}: no block of C++")

includes = []
functions = []
for number, block in enumerate(blocks):
    lines = block.splitlines()
    includes += [line for line in lines if line.startswith("#include")]
    body = "\n".join(line for line in lines if not line.startswith("#include"))
    functions.append(f"[[maybe_unused]] void block_{number}() {{\n{body}\n}}\n")

with open(output, "w", encoding="utf-8") as file:
    file.write("\n".join(sorted(set(includes))) + f'\n#include "{prelude}"\n\nnamespace {{\n\n')
    file.write("\n".join(functions) + "\n}  // namespace\n")
