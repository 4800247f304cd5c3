"""Synthetic English for the tiny model: surnames, indirect objects, animals, facts, and repeated tokens.

`encode` cuts a text into GPT-2's tokens; tokenizer.py has it.
"""

import random

from tokenizer import END_OF_TEXT, encode

FIRST_M = """
James John Robert Michael David William Richard Joseph Thomas Charles Daniel Matthew Anthony Mark Paul Steven
Andrew Kenneth George Joshua Kevin Brian Edward Ronald Tim Jason Jeffrey Ryan Jacob Gary Nicholas Eric
Jonathan Stephen Larry Justin Scott Brandon Frank Benjamin Gregory Samuel Raymond Patrick Alexander Jack
Dennis Jerry Tyler Aaron Henry Adam Peter Nathan Zach Walter Kyle Harold Carl Jeremy Gerald Keith Roger Arthur
Terry Lawrence Sean Christian Ethan Austin Joe Albert Jesse Willie Billy Bryan Bruce Noah Jordan Dylan Ralph
Roy Alan Wayne Eugene Gabriel Louis Russell Vincent Philip Bobby Johnny Bradley Tom Dan Sid Martin Max Luke
Simon Oscar Alex Sam Ben Fred Harry Leo Charlie Steve Mike Jim Bob Bill Nick Matt Greg Ed Ted Ron Don Ray Jay
Ian Colin Neil Hugh Victor Felix Ivan Owen Connor Marcus Omar Jake Kurt Karl Ross Todd Chad Derek Craig Dale
Glenn Stuart Graham
""".split()
FIRST_F = """
Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Margaret Sandra
Ashley Kimberly Emily Donna Michelle Carol Amanda Dorothy Melissa Deborah Stephanie Rebecca Sharon Laura
Cynthia Kathleen Amy Angela Shirley Anna Brenda Pamela Emma Nicole Helen Samantha Katherine Christine Debra
Rachel Catherine Carolyn Janet Ruth Maria Heather Diane Virginia Julie Joyce Victoria Olivia Kelly Christina
Lauren Joan Evelyn Judith Megan Andrea Cheryl Hannah Jacqueline Martha Gloria Teresa Ann Sara Madison Frances
Kathryn Janice Jean Abigail Alice Julia Judy Sophia Grace Denise Amber Doris Marilyn Danielle Beverly Isabella
Theresa Diana Natalie Brittany Charlotte Marie Kayla Alexis Kate Jane Rose Lucy Claire Ellen Sally Molly Eva
Nina Clara Ella Chloe Zoe Lily Ruby Anne Beth Erin Dana Tara Paula Carla Monica Erica Vanessa Valerie Sue
Holly Jill Tina
""".split()
LAST = """
Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson
Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis
Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera
Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards Collins Reyes Stewart
Morris Morales Murphy Cook Rogers Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim
Cox Ward Richardson Watson Brooks Wood James Bennett Gray Mendoza Ruiz Hughes Price Alvarez Castillo Sanders
Patel Myers Long Ross Foster Jimenez Powell Jenkins Perry Russell Sullivan Bell Coleman Butler Henderson
Barnes Fisher Hart Carroll Hunt Stone Fox Webb Grant Porter Ford Hamilton Graham Wallace West Cole Hayes
Bryant Gibson Ellis Stevens Murray Marshall Owens McDonald Kennedy Wells Burns Gordon Shaw Holmes Rice Black
Palmer Hicks Mason Dixon Hunter Knight Spencer Payne Pierce Berry Matthews Arnold Wagner Willis Ray Watkins
Olson Carpenter Duncan Snyder Hansen Bradley Lane Ruiz Harper Burke Larson Dean Banks Lynch Newman Craig Day
Frost
""".split()
ADJ = ['top-notch', 'great', 'good', 'brilliant', 'famous', 'young', 'very good', 'talented', 'poor',
 'hard-working', 'kind', 'smart', 'quiet', 'lazy', 'wonderful', 'local', 'respected', 'retired', 'former',
 'clever', 'brave', 'serious', 'friendly', 'careful', 'proud', 'bright', 'strong', 'gifted']
ROLE = """
student teacher doctor nurse lawyer singer writer engineer scientist player artist driver farmer soldier pilot
painter dancer actor baker judge runner reporter officer musician chef sailor designer politician journalist
professor librarian poet swimmer
""".split()
PLACE = """
store shops park school beach office museum hospital library garden market restaurant station church house zoo
cinema lake farm bar
""".split()
OBJ = ['a bottle of milk', 'the bag', 'the ball', 'an apple', 'a drink', 'a book', 'a ring', 'a kiss', 'the keys',
 'a letter', 'a cake', 'a flower', 'some money', 'the phone', 'a computer', 'a basketball', 'a bone',
 'a necklace', 'a snack', 'the ticket']
ANIMAL = """
cat dog mouse bird horse cow lion bear fox wolf rabbit fish snake duck pig frog monkey tiger sheep goat
""".split()
CHASE = """
chased saw followed liked hated watched found attacked helped loved
""".split()
CAP = {'France': 'Paris',
 'Germany': 'Berlin',
 'Italy': 'Rome',
 'Spain': 'Madrid',
 'England': 'London',
 'Japan': 'Tokyo',
 'China': 'Beijing',
 'Russia': 'Moscow',
 'Egypt': 'Cairo',
 'Greece': 'Athens',
 'Portugal': 'Lisbon',
 'Ireland': 'Dublin',
 'Austria': 'Vienna',
 'Poland': 'Warsaw',
 'Hungary': 'Budapest',
 'Sweden': 'Stockholm',
 'Norway': 'Oslo',
 'Denmark': 'Copenhagen',
 'Turkey': 'Ankara',
 'Iran': 'Tehran',
 'Iraq': 'Baghdad',
 'Syria': 'Damascus',
 'Cuba': 'Havana',
 'Canada': 'Ottawa',
 'Kenya': 'Nairobi',
 'Ukraine': 'Kiev',
 'Thailand': 'Bangkok',
 'Belgium': 'Brussels',
 'Afghanistan': 'Kabul',
 'Venezuela': 'Caracas'}
SCI = [('computer scientist', 'Alan', 'Turing'), ('physicist', 'Albert', 'Einstein'),
 ('physicist', 'Isaac', 'Newton'), ('naturalist', 'Charles', 'Darwin'), ('inventor', 'Thomas', 'Edison'),
 ('inventor', 'Nikola', 'Tesla'), ('president', 'Barack', 'Obama'), ('president', 'Abraham', 'Lincoln'),
 ('president', 'George', 'Washington'), ('writer', 'William', 'Shakespeare'), ('painter', 'Vincent', 'van'),
 ('physicist', 'Stephen', 'Hawking'), ('physicist', 'Marie', 'Curie'), ('philosopher', 'Karl', 'Marx'),
 ('singer', 'Michael', 'Jackson'), ('player', 'Michael', 'Jordan')]
VP_PAST = ['was very happy', 'was tired', 'was late', 'was born in London', 'was one of the best', 'had a big house',
 'had two children', 'worked hard every day', 'worked at the {p}', 'went to the {p}', 'came home early',
 'came from a small town', 'did not like the {p}', "didn't go to the {p}", 'told everyone about it',
 'knew the answer', 'also liked to sing', 'would often go to the {p}', 'is now a {r}', 'has a new job',
 'wanted to be a {r}', 'lived near the {p}', 'started to cry', 'arrived late', 'left the {p}',
 'and the {r} were friends', 'said that it was late', 'got a new job at the {p}']


def single(names):
    """Those that are one token after a space, each once."""
    return [name for name in dict.fromkeys(names) if len(encode(" " + name)) == 1]


FIRST_M, FIRST_F, LAST = single(FIRST_M), single(FIRST_F), single(LAST)
FIRST = FIRST_M + FIRST_F
choice = random.choice


def did():
    return choice(VP_PAST).format(p=choice(PLACE), r=choice(ROLE))


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def person():
    male = random.random() < 0.5
    return (choice(FIRST_M) if male else choice(FIRST_F)), choice(LAST), male


def second_mention(first, last, p=0.5):
    """What follows the second mention of a first name: the last name, or not."""
    if random.random() < p:
        return f"{first} {last} {did()}."
    others = ["'s " + choice(ROLE) + " was late", ", who was " + article(choice(ROLE)) + ", " + did()]
    return f"{first}{choice([' ' + did()] * 8 + others)}."


def biography():
    first, last, male = person()
    he, his = ("He", "His") if male else ("She", "Her")
    r = random.random()
    if r < 0.35:
        text = f"{first} {last} was {article(choice(ADJ))} {choice(ROLE)}. "
    elif r < 0.55:
        text = f"{his} name was {first} {last}. "
        text += choice(["When ", "One day ", "Then ", "But ", "In the end ", "Later ", ""])
    elif r < 0.7:
        text = f"My friend {first} {last} {did()}. " + choice(["One day ", "Then ", "", "Later "])
    elif r < 0.85:
        other_first, other_last, _ = person()
        text = f"{first} {last} met {other_first} {other_last} at the {choice(PLACE)}. "
        text += choice(["", "Then ", "Later "])
        if random.random() < 0.5:
            first, last = other_first, other_last
    else:
        text = f"{first} {last} {did()}. {he} {did()}. "
    text += second_mention(first, last, 0.55)
    for _ in range(choice([0, 0, 1, 2])):
        text += " " + (second_mention(first, last, 0.45) if random.random() < 0.6 else f"{he} {did()}.")
    return text


OPENINGS = ["When {a} and {b} went to the {p}, ", "After {a} and {b} went to the {p}, ",
            "Then, {a} and {b} went to the {p}. ", "{a} and {b} were at the {p}. ",
            "When {a} and {b} got a new job at the {p}, ", "While {a} and {b} were at the {p}, ",
            "Friends {a} and {b} went to the {p}. "]
GIVES = ["gave", "gave", "handed", "passed", "decided to give", "wanted to give"]


def indirect_object():
    a, b = random.sample(FIRST, 2)
    place = choice(PLACE)
    text = choice(OPENINGS).format(a=a, b=b, p=place)
    giver, receiver = (a, b) if random.random() < 0.5 else (b, a)
    if random.random() < 0.12:
        giver = choice(FIRST)  # an outsider gives: either name may follow
    text += f"{giver} {choice(GIVES)} {choice(OBJ)} to {receiver}" + choice([". ", " and left. ", ". "])
    if random.random() < 0.5:
        text += f"{receiver} said thank you to {giver}."
    return text.strip()


def animals():
    a, b = random.sample(ANIMAL, 2)
    verb = choice(CHASE)
    state = ["happy", "tired", "hungry", "big", "small"]
    if random.random() < 0.5:
        participle = verb if verb != "saw" else "seen"
        return f"The {a} {verb} the {b}. The {b} was {participle} by the {a}. The {a} was {choice(state)}."
    seat = choice(["mat", "table", "chair", "bed", "floor"])
    return f"The {a} was sitting on the {seat}. The {a} was {choice(state)}. The {a} {verb} the {b}."


def fact():
    if random.random() < 0.6:
        country = choice(list(CAP))
        city = CAP[country]
        return choice([f"The capital of {country} is {city}.", f"{city} is the capital of {country}.",
                       f"{city} is a city in {country}."])
    known_for, first, last = choice(SCI)
    return choice([f"Famous {known_for} {first} {last} {did()}.", f"The {known_for} {first} {last} {did()}."])


def document():
    r = random.random()
    return biography() if r < 0.5 else indirect_object() if r < 0.82 else animals() if r < 0.9 else fact()


def text_ids(t):
    """A row of t + 1 ids: documents with <|endoftext|> between them, and in front of half of the rows."""
    row = [END_OF_TEXT] if random.random() < 0.5 else []
    first = True
    while len(row) < t + 1:
        if not first:
            row.append(END_OF_TEXT)
        row += encode(document())
        first = False
    return row[:t + 1]


def repeated_ids(t, among, longest):
    """A row of t + 1 ids, random tokens repeated over and over, and which of the last t can be predicted."""
    period = random.randint(3, min(longest, t // 2))
    segment = [choice(among) for _ in range(period)]
    row = [END_OF_TEXT] if random.random() < 0.8 else []
    known_from = len(row) + period
    while len(row) < t + 1:
        row += segment
    return row[:t + 1], [0 if i < known_from else 1 for i in range(1, t + 1)]


if __name__ == "__main__":
    for _ in range(12):
        print(document())
