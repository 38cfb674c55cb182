"""`picme evaluate`: an engine or a checkpoint, measured on pictures beside simple completions.

holes.py       which hole each picture gets
models.py      an engine or a checkpoint behind one protocol; Telea's completion
measures.py    numbers of one picture and its results
distances.py   distances between sets of pictures, in a feature space
primitives.py  what the primitives of the mixture do
diversity.py   an engine of one picture at low, mid and high diversity (IDC's Table S2)
comparison.py  all of it over all pictures, side by side
report.py      the table and the JSON; plots.py, the pictures
"""
