"""Word lists shared by the text tasks."""

FIRST = """
Ana Ben Carla David Elena Felix Grace Hugo Ines Jonas Karin Liam Maria Nora Oscar Paula Quentin Rosa Simon
Tara Umar Vera Walter Xenia Yusuf Zoe Amir Bianca Chen Daria Emil Fatima Georg Hana Ivan Julia Kenji Lena
Marco Nadia
""".split()

LAST = """
Silva Meyer Costa Novak Rossi Tanaka Ivanova Larsen Dubois Kowalski Garcia Schmidt Haddad Okafor Singh Park
Jensen Murphy Moreau Fischer Santos Weber Nguyen Brown Clark Evans Young Lopez Keller Bauer
""".split()

CITY = """
Porto Lisbon Berlin Madrid Vienna Oslo Prague Dublin Turin Lyon Ghent Basel Krakow Tokyo Osaka Seoul Lima
Quito Boston Denver Austin Cairo Tunis Accra Perth Bergen Malmo Split Graz Nantes
""".split()

NOUN = """
apple anchor basket battery blanket bottle bridge button candle carpet castle chair clock cloud coffee copper
desk door engine feather fence flower forest garden glass hammer helmet island jacket kettle ladder lamp
lantern lemon letter market mirror mountain needle orange paper pencil pepper picture pillow plate pocket
river rocket saddle shovel silver spoon stone table ticket tower train tunnel umbrella valley wagon wheel
window winter
""".split()

ADJECTIVE = """
big bright broken calm clean cold dark deep dry early empty fast flat fresh green heavy high large late light
long loud narrow new old open plain quick quiet red rough round sharp short slow small smooth soft strong tall
thick thin warm wet white wide wild young
""".split()

VERB = """
bring build buy call carry check clean close count cover draw drop fill find fix follow hold keep lift mark
measure move open order paint pick place pull push read repair save sell send show sort start stop store take
turn wash watch write
""".split()

IDENTIFIER = """
acc amount area base batch best bound buf cache cell chunk code col count cur data delta depth diff dist done
edge end error factor first flag freq gain group head height high index item key label last left length level
limit line list low mask max_len mean mid min_len mode name next node num offset order out pair parent part
path pos prev price queue rank rate ratio res result right root row score seed seq shift size slot src start
state step stride sum table tag target temp text time token top total unit user value volume weight width word
""".split()
