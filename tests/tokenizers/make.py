"""Makes the tokenizers of this folder and, for each text of texts.json, the ids that Hugging Face gives.

    pip install tokenizers transformers
    python make.py

Made with tokenizers 0.23.3 and transformers 5.24. No network; the same files come out each time.

Each folder is a tokenizer as models have it, but small. expected.json beside it holds
  ids      of every text, without the tokens that a post-processor adds
  decoded  what the ids decode to, by the text's index, where that is not the text itself; an added token
           as its text (the ByteLevel decoder would take the letters of "schön" for single bytes)
  bos, eos, opens_texts   which token opens and ends a text, and whether one is put in front
"""
import json, os, random, shutil, unicodedata

os.environ["HF_HUB_OFFLINE"] = "1"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

GERMAN = """Der Hund läuft über die Straße und die Katze schläft auf dem Dach. Die Kinder spielen im Garten, während
die Großmutter Kuchen bäckt. Am nächsten Morgen gingen sie früh in die Stadt und kauften Äpfel, Brot und süße Brötchen.
Über den Wäldern lag noch der Nebel; niemand wusste, wohin der schmale Weg führte. Wer zuletzt lacht, lacht am besten."""
ENGLISH = """The dog runs across the street and the cat sleeps on the roof. She'll say that they've never been there, and
he's sure it isn't so. When the children had gone home, the old teacher put 12 books and 345 sheets of paper on the table.
    for index in range(10):
        print(index, "done")
Nobody knew where the narrow path led; I'm told that they're still looking for it. THE END. WE'RE HERE. DON'T."""
MANY = """Быстрая лиса прыгает через ленивую собаку. Η γάτα κοιμάται στη στέγη. 今日は天気がいいですね。 我们去公园散步。
오늘은 날씨가 좋네요. नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก ยินดีต้อนรับ. שלום עולם, مرحبا بالعالم. Tiếng Việt rất đẹp.
İstanbul'da ılık bir gün. L'été à la forêt, ça va très bien: œuvre, naïve, cœur. 12 345 678 ½ ² ٣٤٥ 🦀 👩‍👩‍👧 ❤️ e\u0301 n\u0303."""
ODD = [
    "", " ", "  ", "   a", "a   ", "\n", "\n\n", "\r\n", " \n \t\n", "\t\ttab", "a\u00a0b", "a\u3000\u3000b", "a\u0085b", "a\u2028b",
    "\u200b", "a\u200bb", "\ufeffabc", "\u0000", "a\u0000b", "\u0007\u001b[0m", "\u007f\u0080\u009f", "\ue000\uf8ff", "\U000f0000",
    "\ufffd", "\uffff", "\U0010ffff", "é", "e\u0301", "e\u0301\u0323", "e\u0323\u0301", "a\u0323\u0307", "\u1ea1\u0307", "ñ n\u0303 N\u0303",
    "\u212b \u2126 \u212a", "ﬁ ﬀ ǆ ŉ ẖ", "가 \u1100\u1161 각 \u1100\u1161\u11a8", "\u0301abc", "\u0958\u0929", "a\u0315\u0300\u05ae\u0300b",
    "ß ẞ ss SS", "İ ı I i", "ſ 'ſ it'ſ", "K 'K", "I'm I'M 'm 'M 'Re 'LL 'lL 'vE 'D 'S 'T", "’s ’t ’re", "''s", "'s't're've'm'll'd",
    "don'tdon't", "x'sy", "0", "007", "1234567890", "3.14159", "1,000,000", "1 2  3   4", "½²³①Ⅷ", "٣٤٥ ४५६", "a1b22c333d4444",
    "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽", "❤️ ❤", "1️⃣", "🦀🦀🦀", "日本語テキスト", "中文，标点。", "สวัสดี", "नमस्ते क्षत्रिय", "שָׁלוֹם", "مُحَمَّد",
    "Ǆ ǅ ǆ", "𝕳𝖊𝖑𝖑𝖔", "𐍈𐌰", "𞤀𞤁", "\u0378", "a\u034fb", "a\u00adb", "\u061c\u200f\u202eabc\u202c", "\u1680\u180e\u2000\u2007\u202f\u205f",
    "a" * 300, "ab" * 200, " " * 130, "\n" * 70, "é" * 100, "e\u0301" * 60, "🦀" * 40, "a" + "\u0301\u0323" * 40, "=" * 90, "a b " * 40,
    "Ġ", "ĠThe", "Ċ", "ĠÃ¼ber", "#319", "\\xe6\\x97", "<0x0A>", "▁the", "##ing", "</w>", "\u2581",
    "if (x == 1) {\n\treturn x;\n}\n", "    def f(self):\n        pass\n\n\n", "a.b.c/d\\e", "user@example.com", "https://example.org/?q=1&r=a%20b",
    "<|endoftext|", "|endoftext|>", "<|ENDOFTEXT|>", "<s>", "<pad>", "<unk>", "[UNK]", "...", "…", "--", "—", "“quoted”", "«»", "$5 €6 £7",
]
# Texts that are added tokens somewhere.
MARKS = ["<|endoftext|>", "<|padding|>", "</s>", "<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|startoftext|>", "<left>", "<right>",
         "<both>", "<word>", "NULL", "schön", "Cafe\u0301", "Café", "<|", "<|e", "<mask>"]


def texts():
    rng = random.Random(14)
    found = list(ODD)
    blanks = ["", " ", "  ", "\n", " \n", "\t", "\u00a0", "\r\n", "        "]
    for mark in MARKS:
        for before, after in [("", ""), ("a", "b"), (" ", " "), ("a ", " b"), ("\n", "\n"), ("_", "_"), ("é", "é"), ("  \t", "\n  ")]:
            found.append(before + mark + after)
    for _ in range(90):
        found.append("".join(rng.choice(MARKS + ["a", "The dog", "über", "e\u0301"]) + rng.choice(blanks) for _ in range(rng.randint(2, 6))))
    words = (GERMAN + " " + ENGLISH + " " + MANY).split()
    for _ in range(110):
        found.append("".join(rng.choice(words) + rng.choice([" ", " ", " ", "  ", "\n", ", ", ""]) for _ in range(rng.randint(1, 9))))
    ranges = [(0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0xeff), (0x1100, 0x11ff),
              (0x1e00, 0x1fff), (0x2000, 0x206f), (0x2100, 0x218f), (0x3040, 0x30ff), (0x4e00, 0x4fff), (0xac00, 0xad00), (0xfb00, 0xfb4f),
              (0x1f300, 0x1f6ff), (0, 0x1f), (0x7f, 0xa0)]
    for _ in range(130):
        # Characters of a few scripts, in runs, with blanks and combining marks between them.
        text = ""
        for _ in range(rng.randint(1, 6)):
            low, high = rng.choice(ranges)
            run = [chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5))]
            text += "".join(run) + rng.choice(["", " ", "\u0301", "\n", "'s", "1"])
        # Characters that are newer than Unicode 9 differ between versions of every library.
        found.append("".join(c for c in text if unicodedata.category(c) != "Cn" and c in OLD))
    found += [unicodedata.normalize("NFD", text) for text in [GERMAN, MANY, "Äpfel Öl Übel über é à ç ñ ễ ậ"]]
    return list(dict.fromkeys(found))


OLD = {chr(i) for i in range(0x110000) if unicodedata.ucd_3_2_0.category(chr(i)) != "Cn"}


def train(corpus, size, pre, normalizer=None, special=(), alphabet=True):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    t.train_from_iterator([corpus] * 3, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=letters,
                                                            min_frequency=1, show_progress=False))
    return t


def save(name, t):
    os.makedirs(f"{HERE}/{name}")
    t.save(f"{HERE}/{name}/tokenizer.json", pretty=False)


def edit(name, change):
    path = f"{HERE}/{name}/tokenizer.json"
    data = json.load(open(path, encoding="utf-8"))
    change(data)
    write(f"{name}/tokenizer.json", data)


def write(name, data):
    with open(f"{HERE}/{name}", "w", encoding="utf-8") as file:
        json.dump(data, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


def german():
    """GPT-2's way, ids in an order of their own, merges as strings, added tokens with every flag."""
    t = train(GERMAN + MANY, 1100, pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<|endoftext|>"])
    t.add_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True), AddedToken("<both>", lstrip=True, rstrip=True),
                  AddedToken("NULL", single_word=True), AddedToken("schön"), AddedToken("<|"), AddedToken("  ", rstrip=True)])
    save("german", t)

    def change(data):
        rng = random.Random(1)
        vocab = list(data["model"]["vocab"])
        ids = list(range(1, len(vocab)))
        rng.shuffle(ids)
        # <|endoftext|> stays 0.
        data["model"]["vocab"] = dict(zip(vocab, [0] + ids))
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
        del data["model"]["type"]

    edit("german", change)


def pythia():
    """NFC, added tokens for runs of blanks, and one that is another text after NFC."""
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t = train(ENGLISH + MANY, 1000, pre, normalizers.NFC(), ["<|endoftext|>", "<|padding|>"])
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    t.add_tokens([AddedToken("Cafe\u0301", normalized=True), AddedToken("<word>", normalized=True, single_word=True)])
    t.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    save("pythia", t)
    write("pythia/tokenizer_config.json", {"add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                                           "unk_token": "<|endoftext|>", "clean_up_tokenization_spaces": True,
                                           "tokenizer_class": "GPTNeoXTokenizerFast"})
    write("pythia/special_tokens_map.json", {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})


def llama3():
    """Its own pattern, words that are tokens stay whole, <|begin_of_text|> in front."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated", invert=False),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    t = train(ENGLISH + MANY + GERMAN, 1500, pre)
    names = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(14)]
    t.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    first = t.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                             special_tokens=[("<|begin_of_text|>", first)])
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    save("llama3", t)

    def change(data):
        data["model"]["ignore_merges"] = True
        # Without every third merge most long tokens are reached as whole words only.
        data["model"]["merges"] = [merge for i, merge in enumerate(data["model"]["merges"]) if i < 300 or i % 3]

    edit("llama3", change)
    write("llama3/tokenizer_config.json", {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>",
                                           "tokenizer_class": "PreTrainedTokenizerFast"})


def qwen2():
    """NFC and its own pattern; no token opens texts; added_tokens_decoder."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), behavior="isolated", invert=False),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    t = train(ENGLISH + MANY, 900, pre, normalizers.NFC())
    t.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    save("qwen2", t)
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    listed = {str(t.token_to_id(n)): {"content": n, **flags} for n in ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]}
    # The settings overrule tokenizer.json: here this token takes the blanks after it.
    listed[str(t.token_to_id("<|im_start|>"))]["rstrip"] = True
    write("qwen2/tokenizer_config.json", {"add_prefix_space": False, "added_tokens_decoder": listed, "bos_token": None,
                                          "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>",
                                          "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None})


def opt():
    """vocab.json and merges.txt, special tokens first, </s> in front."""
    t = train(ENGLISH + MANY, 800, pre_tokenizers.ByteLevel(add_prefix_space=False))
    os.makedirs(f"{HERE}/opt")
    t.model.save(f"{HERE}/opt")
    vocab = json.load(open(f"{HERE}/opt/vocab.json", encoding="utf-8"))
    ordered = ["<s>", "<pad>", "</s>", "<unk>"] + sorted(vocab, key=lambda token: (len(token), token)) + ["madeupword0000", "madeupword0001"]
    write("opt/vocab.json", {token: i for i, token in enumerate(ordered)})
    token = lambda text: {"content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    write("opt/special_tokens_map.json", {"bos_token": token("</s>"), "eos_token": token("</s>"), "unk_token": token("</s>"),
                                          "pad_token": token("<pad>")})
    config = {f"{role}_token": {**token(text), "__type": "AddedToken"}
              for role, text in [("unk", "</s>"), ("bos", "</s>"), ("eos", "</s>"), ("pad", "<pad>")]}
    write("opt/tokenizer_config.json", {"errors": "replace", **config, "add_prefix_space": False, "add_bos_token": True,
                                        "tokenizer_class": "GPT2Tokenizer"})


def gaps():
    """A space in front of every piece, digits one by one, bytes that no token stands for."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    t = train(ENGLISH + GERMAN, 700, pre, special=["<unk>", "<|endoftext|>"], alphabet=False)
    save("gaps", t)

    def change(data):
        data["model"]["unk_token"], data["model"]["fuse_unk"] = "<unk>", True

    edit("gaps", change)


def expected(name, found):
    folder = f"{HERE}/{name}"
    if name == "opt":
        t = AutoTokenizer.from_pretrained(folder)
        assert isinstance(t, GPT2Tokenizer)
    elif os.path.exists(f"{folder}/tokenizer_config.json"):
        t = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        t = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    ids = [t.encode(text, add_special_tokens=False) for text in found]
    backend = t.backend_tokenizer
    added = backend.get_added_tokens_decoder()

    def decode(row):
        text, run = "", []
        for i in row + [None]:
            if i is not None and i not in added:
                run.append(i)
                continue
            text += backend.decode(run)
            text += added[i].content if i is not None else ""
            run = []
        return text

    decoded = [decode(row) for row in ids]
    opened = t.encode("The dog", add_special_tokens=True) != t.encode("The dog", add_special_tokens=False)
    write(f"{name}/expected.json", {
        "bos": t.encode("")[0] if opened else t.bos_token_id, "eos": t.eos_token_id, "opens_texts": opened, "ids": ids,
        "decoded": {str(i): back for i, (text, back) in enumerate(zip(found, decoded)) if text != back}})
    print(name, len(backend.get_vocab()), "tokens,", len(found), "texts")


if __name__ == "__main__":
    found = texts()
    write("texts.json", found)
    for make in [german, pythia, llama3, qwen2, opt, gaps]:
        shutil.rmtree(f"{HERE}/{make.__name__}", ignore_errors=True)
        make()
        expected(make.__name__, found)
